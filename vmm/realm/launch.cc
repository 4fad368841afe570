#include "vmm/realm/launch.h"

#include <kj/debug.h>
#include <unistd.h>

#include "vmm/disk_plan.h"
#include "vmm/error_codes.h"
#include "vmm/quote.h"
#include "vmm/realm/bundle.h"
#include "vmm/realm/guest_draft.h"
#include "vmm/realm/realm_net.h"
#include "vmm/user_error.h"

namespace troupe::realm {

namespace {

constexpr kj::StringPtr GUEST_CFG = "guest.cfg"_kj;
constexpr kj::StringPtr TROUPE_JSON = "troupe.json"_kj;

[[noreturn]] void cannotBe(kj::String message, kj::StringPtr advice) {
  UserError(codes::GUEST_IMPOSSIBLE, kj::mv(message)).advice("use", advice).raise();
}

kj::uint hostCpus() {
  long count = sysconf(_SC_NPROCESSORS_ONLN);
  return count > 0 ? kj::uint(count) : 1;
}

GuestPlan readPlan(LaunchInfo::Reader info, const Bundle& bundle) {
  GuestDraft draft(info.getGuestConfig());
  // Merged even if there is none: then it says nothing.
  constexpr kj::StringPtr NOTHING = "{}"_kj;
  auto cfg = bundle.readText(GUEST_CFG);
  auto cfgName = kj::str(bundle.name(), "/", GUEST_CFG);
  KJ_IF_MAYBE (text, cfg) {
    draft.merge(*text, cfgName);
  } else {
    draft.merge(NOTHING, cfgName);
  }
  auto typed = bundle.readText(TROUPE_JSON);
  KJ_IF_MAYBE (text, typed) draft.mergeTyped(*text, kj::str(bundle.name(), "/", TROUPE_JSON));
  return draft.finish(GuestDraft::Host{hostCpus(), /*hasGpu=*/false, /*hasMagma=*/false});
}

void describeMode(BlockMode mode, DiskConfig::Builder disk) {
  disk.setRo(mode == BlockMode::READ_ONLY);
  disk.setVolatile(mode == BlockMode::VOLATILE_WRITE);
}

kj::StringPtr formatName(BlockFormat format) {
  return format == BlockFormat::QCOW ? "qcow2"_kj : "raw"_kj;
}

kj::String handedName(kj::uint index) {
  return kj::str("LaunchInfo.blockDevices[", index, "]");
}

void checkHanded(BlockDevice::Reader block, kj::uint index) {
  auto wrong = [&](kj::StringPtr why) {
    UserError(codes::BLOCK_DEVICE, kj::str(handedName(index), " ", why)).raise();
  };
  if (block.getId().size() > MAX_BLOCK_DEVICE_ID_SIZE) {
    wrong(kj::str("has an id of ", block.getId().size(), " bytes; an id has at most ",
                  MAX_BLOCK_DEVICE_ID_SIZE));
  }
  if (block.getMode() > BlockMode::VOLATILE_WRITE) wrong("has a mode that does not exist");
  if (block.getFormat() > BlockFormat::QCOW) wrong("has a format that does not exist");
}

// Those of the launcher's configuration and guest.cfg, then of troupe.json, then those handed over.
void describeDisks(GuestPlan& plan, capnp::List<BlockDevice>::Reader handed,
                   VmConfig::Builder config) {
  auto typed = plan.typed->getRoot<VmConfig>().asReader().getDisks();
  auto disks = config.initDisks(kj::uint(plan.blocks.size()) + typed.size() + handed.size());
  kj::uint next = 0;
  for (auto& block : plan.blocks) {
    auto disk = disks[next];
    disk.setPath(block.path);
    disk.setId(kj::str("block-", next));
    disk.setFormat(formatName(block.format));
    describeMode(block.mode, disk);
    next++;
  }
  for (auto disk : typed)
    disks.setWithCaveats(next++, disk);
  for (auto i : kj::indices(handed)) {
    auto block = handed[i];
    checkHanded(block, i);
    auto disk = disks[next];
    disk.setPath(handedName(i));
    disk.setId(block.getId().size() > 0 ? kj::heapString(block.getId()) : kj::str("block-", next));
    disk.setFormat(formatName(block.getFormat()));
    describeMode(block.getMode(), disk);
    next++;
  }
}

void describeRest(GuestPlan& plan, const GuestPlace& place, VmConfig::Builder config) {
  auto typed = plan.typed->getRoot<VmConfig>().asReader();
  auto isOn = [&](Toggle toggle) { return plan.toggles[size_t(toggle)]; };
  config.setName(place.name);
  config.setKernel(plan.kernelPath);
  KJ_IF_MAYBE (path, plan.ramdiskPath) config.setInitrd(*path);
  config.setCpus(plan.cpus);
  config.setSerial(kj::str("socket=", place.serialSocket));
  if (isOn(Toggle::CONSOLE)) {
    config.initConsoles(1)[0].setWhere(kj::str("socket=", place.consoleSocket));
  }
  bool limitsRng = typed.hasRng() && typed.getRng() != "off";
  config.setRng(!isOn(Toggle::RNG) ? "off"_kj
                : limitsRng        ? kj::StringPtr(typed.getRng())
                                   : "on"_kj);
  if (isOn(Toggle::BALLOON)) {
    // Whoever asks for statistics is told that there are none, unless they are asked for.
    config.initBalloon().setStats(typed.hasBalloon() ? typed.getBalloon().getStats() : true);
  }
  if (isOn(Toggle::VSOCK)) config.initVsock().setCid(place.cid);
  config.setCpuMask(typed.getCpuMask());
  config.setOnReboot(typed.getOnReboot());
}

KernelKind kindOf(const GuestPlan& plan) {
  return plan.kernel
      .map([](Kernel kernel) {
        return kernel == Kernel::LINUX ? KernelKind::LINUX : KernelKind::ZIRCON;
      })
      .orDefault(KernelKind::ANY);
}

// What a VmConfig has no words for.
void addBootWords(GuestPlan& guest, VmPlan& plan) {
  plan.cmdline = kj::mv(guest.cmdline);
  plan.kernelKind = kindOf(guest);
  plan.deviceTree = kj::mv(guest.dtbOverlayPath);
  plan.memoryBytes = 0;
  for (auto& range : guest.ram)
    plan.memoryBytes += range.size;
  plan.placedRam = kj::mv(guest.ram);
}

}  // namespace

VmStart startOf(LaunchInfo::Reader info, LaunchFds fds, const GuestPlace& place,
                const RealmTerms& terms) {
  if (info.hasWaylandDevice()) {
    cannotBe(kj::str("waylandDevice is given, and there is no virtio_wl device yet"),
             "no waylandDevice");
  }
  if (info.hasMagmaDevice()) {
    cannotBe(kj::str("magmaDevice is given, and there is no virtio_magma device yet"),
             "no magmaDevice");
  }
  auto handed = info.getBlockDevices();
  if (handed.size() != fds.blockDevices.size() || handed.size() > MOST_DISKS) {
    cannotBe(kj::str(handed.size(), " block devices are given, with ", fds.blockDevices.size(),
                     " files"),
             kj::str("at most ", MOST_DISKS, ", each with its file"));
  }
  Bundle bundle(info.getUrl(), info.getFlatNamespace(), kj::mv(fds.directories));
  auto guest = readPlan(info, bundle);

  capnp::MallocMessageBuilder message;
  auto config = message.initRoot<VmConfig>();
  describeRest(guest, place, config);
  describeDisks(guest, handed, config);
  RealmNets nets(guest, terms.net);
  nets.describe(config);
  auto plan = planVm(config);
  addBootWords(guest, plan);
  size_t firstHanded = plan.disks.size() - handed.size();
  for (auto i : kj::indices(fds.blockDevices))
    plan.disks[firstHanded + i].handed = fds.blockDevices[i];

  auto files = openVmFiles(plan, bundle, CidOwner::REALM);
  files.macs = nets.releaseLeases();
  for (auto i : kj::indices(fds.blockDevices))
    plan.disks[firstHanded + i].handed = -1;
  return VmStart{kj::mv(plan), kj::mv(files), kj::mv(guest.notes)};
}

}  // namespace troupe::realm
