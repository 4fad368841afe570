#include "vmm/vm_files.h"

namespace troupe {

VmFiles openVmFiles(const VmPlan& plan) {
  checkHostMemory(plan.memoryBytes);
  auto kernel = openImage("kernel", plan.kernel, plan.memoryBytes);
  kj::Maybe<OpenFile> initrd;
  KJ_IF_MAYBE (path, plan.initrd) {
    initrd = openImage("initrd", *path, plan.memoryBytes - kernel.size);
  }
  auto disks = openDisks(plan.disks);
  auto serial = openEndpoint("--serial", plan.serial);
  auto consoles = KJ_MAP(console, plan.consoles) {
    return openEndpoint(consoleOption(console), console.where);
  };
  auto nets = openNets(plan.nets);
  auto vsock = plan.vsock.map([](const VsockPlan& vsock) { return openVsock(vsock); });
  auto metrics = plan.metrics.map([](const kj::String& path) {
    return kj::heap<ListeningSocket>(path, "--metrics", codes::METRICS_SOCKET);
  });
  return {kj::mv(kernel),   kj::mv(initrd),
          kj::mv(disks),    kj::mv(nets),
          openKvm(),        kj::mv(serial),
          kj::mv(consoles), sandbox::makeSharedMemory("guest-ram", plan.memoryBytes),
          kj::mv(vsock),    kj::mv(metrics),
          openRecordings(plan.records)};
}

}  // namespace troupe
