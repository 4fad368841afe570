#include "vmm/company/vm_files.h"

#include <kj/debug.h>

namespace troupe {

void VmFiles::keepMade() {
  for (auto& recording : recordings)
    recording.trial->keep();
  for (auto& net : nets) {
    KJ_IF_MAYBE (trial, net.pcapTrial) (*trial)->keep();
  }
}

VmFiles openVmFiles(const VmPlan& plan, const FileSource& source, CidOwner cidOwner) {
  checkHostMemory(plan.memoryBytes);
  auto kernel = openImage("kernel", plan.kernel, plan.memoryBytes, source);
  kj::Maybe<OpenFile> initrd;
  KJ_IF_MAYBE (path, plan.initrd) {
    initrd = openImage("initrd", *path, plan.memoryBytes - kernel.size, source);
  }
  auto deviceTree = plan.deviceTree.map([&](const kj::String& path) {
    return openImage("device tree", path, plan.memoryBytes, source);
  });
  auto disks = openDisks(plan.disks, source, Locking::LATER);
  auto hostMemory = KJ_MAP(words, plan.hostMemory) {
    return openHostMemory(words);
  };
  auto serial = openEndpoint("--serial", plan.serial);
  auto consoles = KJ_MAP(console, plan.consoles) {
    return openEndpoint(consoleOption(console), console.where);
  };
  auto nets = openNets(plan.nets);
  auto vsock = plan.vsock.map([cidOwner](const VsockPlan& vsock) {
    if (cidOwner == CidOwner::VM) return openVsock(vsock);
    return openRealmVsock(KJ_REQUIRE_NONNULL(vsock.cid, "a realm gives each guest a cid"));
  });
  auto metrics = plan.metrics.map([](const kj::String& path) {
    return kj::heap<ListeningSocket>(path, "--metrics", codes::METRICS_SOCKET);
  });
  return {
      kj::mv(kernel),    kj::mv(initrd),   kj::mv(deviceTree),
      kj::mv(disks),     kj::mv(nets),     openKvm(),
      kj::mv(serial),    kj::mv(consoles), sandbox::makeSharedMemory("guest-ram", plan.memoryBytes),
      kj::mv(vsock),     kj::mv(metrics),  openRecordings(plan.records),
      kj::mv(hostMemory)};
}

}  // namespace troupe
