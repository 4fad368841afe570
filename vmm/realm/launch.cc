#include "vmm/realm/launch.h"

#include <kj/debug.h>
#include <unistd.h>

#include "vmm/config/disk_plan.h"
#include "vmm/realm/bundle.h"
#include "vmm/realm/guest_draft.h"
#include "vmm/realm/realm_net.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

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

constexpr GuestDraft::Host THIS_HOST = {0, /*hasGpu=*/false, /*hasMagma=*/false};

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
  auto host = THIS_HOST;
  host.cpus = hostCpus();
  return draft.finish(host);
}

GuestPlan readPlan(LaunchInfo::Reader info, VmConfig::Reader words) {
  GuestDraft draft(info.getGuestConfig());
  draft.addOwn(words);
  auto host = THIS_HOST;
  host.memoryEnd = UINT64_MAX;  // what is more than this machine has is refused as such
  return draft.finish(host);
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
    disk.setId(kj::str("block-", next));
    disk.setFormat(formatName(block.getFormat()));
    describeMode(block.getMode(), disk);
    next++;
  }
}

bool isOn(const GuestPlan& plan, Toggle toggle) {
  return plan.toggles[size_t(toggle)];
}

// What a GuestConfig says, and where it leaves the how to Troupe's own words, these. But for disks
// and networks, and what a VmConfig has no words for (addBootWords()).
void describeGuest(GuestPlan& plan, VmConfig::Builder config) {
  auto typed = plan.typed->getRoot<VmConfig>().asReader();
  config.setKernel(plan.kernelPath);
  KJ_IF_MAYBE (path, plan.ramdiskPath) config.setInitrd(*path);
  config.setCpus(plan.cpus);
  bool limitsRng = typed.hasRng() && typed.getRng() != "off";
  config.setRng(!isOn(plan, Toggle::RNG) ? "off"_kj
                : limitsRng              ? kj::StringPtr(typed.getRng())
                                         : "on"_kj);
  // Whoever asks for statistics is told that there are none, unless they are asked for.
  bool hasStats = typed.hasBalloon() ? typed.getBalloon().getStats() : true;
  config.disownBalloon();
  if (isOn(plan, Toggle::BALLOON)) config.initBalloon().setStats(hasStats);
  config.setCpuMask(typed.getCpuMask());
  config.setOnReboot(typed.getOnReboot());
}

// A guest of a realm is found at its place.
void describePlace(const GuestPlan& plan, const GuestPlace& place, VmConfig::Builder config) {
  config.setName(place.name);
  config.setSerial(kj::str("socket=", place.serialSocket));
  if (isOn(plan, Toggle::CONSOLE)) {
    config.initConsoles(1)[0].setWhere(kj::str("socket=", place.consoleSocket));
  }
  if (isOn(plan, Toggle::VSOCK)) config.initVsock().setCid(place.cid);
}

KernelKind kindOf(const GuestPlan& plan) {
  return plan.kernel
      .map([](Kernel kernel) {
        return kernel == Kernel::LINUX ? KernelKind::LINUX : KernelKind::ZIRCON;
      })
      .orDefault(KernelKind::ANY);
}

// Whether `bytes` of RAM lie there without anybody's word.
bool isPlacedBySize(kj::ArrayPtr<const broker::RamRange> ram, uint64_t bytes) {
  auto usual = broker::ramRegions(bytes);
  bool isSame = bytes % RAM_STEP == 0 && ram.size() == usual.size();
  for (size_t i = 0; isSame && i < usual.size(); i++) {
    isSame = ram[i].guestAddress == usual[i].guestAddress && ram[i].size == usual[i].size;
  }
  return isSame;
}

// What a VmConfig has no words for.
void addBootWords(GuestPlan& guest, VmPlan& plan) {
  plan.cmdline = kj::mv(guest.cmdline);
  plan.kernelKind = kindOf(guest);
  plan.deviceTree = kj::mv(guest.dtbOverlayPath);
  plan.memoryBytes = 0;
  for (auto& range : guest.ram)
    plan.memoryBytes += range.size;
  if (!isPlacedBySize(guest.ram, plan.memoryBytes)) plan.placedRam = kj::mv(guest.ram);
}

HostMemoryWords::Kind kindOf(MemoryPolicy policy) {
  return policy == MemoryPolicy::HOST_DEVICE ? HostMemoryWords::Kind::DEVICE
                                             : HostMemoryWords::Kind::CACHED;
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
  describeGuest(guest, config);
  describePlace(guest, place, config);
  describeDisks(guest, handed, config);
  RealmNets nets(guest, terms.net);
  nets.describe(config);
  auto plan = planVm(config);
  addBootWords(guest, plan);
  plan.hostMemory = KJ_MAP(region, guest.hostMemory) {
    return permittedPart(terms.hostMemory, region.guestAddress, region.size, kindOf(region.policy));
  };
  size_t firstHanded = plan.disks.size() - handed.size();
  for (auto i : kj::indices(fds.blockDevices)) {
    auto& disk = plan.disks[firstHanded + i];
    disk.handed = fds.blockDevices[i];
    // Any bytes, and several times the same: it is between the launcher and the guest.
    if (handed[i].getId().size() > 0) disk.serial = kj::heapString(handed[i].getId());
  }

  auto files = openVmFiles(plan, bundle, CidOwner::REALM);
  files.macs = nets.releaseLeases();
  for (auto i : kj::indices(fds.blockDevices))
    plan.disks[firstHanded + i].handed = -1;
  return VmStart{kj::mv(plan), kj::mv(files), kj::mv(guest.notes)};
}

VmStart startOf(LaunchInfo::Reader info, VmConfig::Reader words) {
  auto guest = readPlan(info, words);
  capnp::MallocMessageBuilder message;
  message.setRoot(words);  // its place is what they say, and so is what only they may ask for
  auto config = message.getRoot<VmConfig>();
  describeGuest(guest, config);
  if (!isOn(guest, Toggle::CONSOLE)) config.disownConsoles();
  if (!isOn(guest, Toggle::VSOCK)) config.disownVsock();
  describeDisks(guest, info.getBlockDevices(), config);
  auto plan = planVm(config);
  addBootWords(guest, plan);
  auto files = openVmFiles(plan);
  return VmStart{kj::mv(plan), kj::mv(files), kj::mv(guest.notes)};
}

LaunchOrder orderOf(VmConfig::Reader words) {
  auto plan = planVm(words);  // so what is wrong is said of the words as they were given
  LaunchOrder order{kj::heap<capnp::MallocMessageBuilder>()};
  auto guest = order.info->initRoot<LaunchInfo>().initGuestConfig();
  // Of the two that the field may name. What the file is, it says itself (GuestDraft::addOwn()).
  guest.initKernel().setValue(Kernel::LINUX);
  guest.setKernelPath(words.getKernel());
  guest.setRamdiskPath(words.getInitrd());
  guest.setDtbOverlayPath("");
  guest.initBlockDevices(0);  // a BlockSpec has no id, no rate, no backing file: all are in `words`
  guest.setCmdline(plan.cmdline);
  guest.initCmdlineAdd(0);
  guest.initMemory(1)[0].setSize(plan.memoryBytes);
  guest.initInterrupts(0);
  guest.initCpus().setValue(uint8_t(plan.cpus));
  guest.initNetDevices(0);  // nor does a NetSpec say what is behind it
  guest.initDefaultNet().setValue(false);
  guest.initVirtioBalloon().setValue(plan.balloon != nullptr);
  guest.initVirtioConsole().setValue(plan.consoles.size() > 0);
  guest.initVirtioGpu().setValue(false);
  guest.initVirtioMagma().setValue(false);
  guest.initVirtioRng().setValue(plan.rng);
  guest.initVirtioVsock().setValue(plan.vsock != nullptr);
  auto& own = *order.own.emplace(kj::heap<capnp::MallocMessageBuilder>());
  own.setRoot(words);
  return order;
}

}  // namespace troupe::realm
