#include "broker/broker_actor.h"

#include <kj/debug.h>

#include "broker/boot_file.h"
#include "broker/memory_map.h"
#include "broker/refusal.h"

namespace troupe::broker {
namespace {

constexpr uint32_t MOST_VCPUS = 255;  // ids of an xAPIC, 255 being the broadcast
constexpr uint64_t MEMORY_UNIT = 2 * MIB;

void requireSound(MachineConfig::Reader config) {
  if (config.getCpus() == 0 || config.getCpus() > MOST_VCPUS) {
    refuse("TRP-cfg-102: a VM of ", config.getCpus(), " vCPUs; it can have 1 to ", MOST_VCPUS);
  }
  bool isPlaced = config.getRegions().size() > 0;
  bool isSound = config.getMemoryBytes() > 0 && config.getMemoryBytes() % MEMORY_UNIT == 0;
  if (!isPlaced && !isSound) {
    refuse("TRP-cfg-103: guest memory of ", config.getMemoryBytes(),
           " bytes; it comes in pieces of 2 MiB, at least one");
  }
}

kj::Array<RamRegion> regionsOf(MachineConfig::Reader config) {
  if (config.getRegions().size() == 0) return nullptr;
  auto ranges = KJ_MAP(range, config.getRegions()) {
    return RamRange{range.getGuestAddress(), range.getSize()};
  };
  auto regions = placedRegions(ranges);
  auto& last = regions[regions.size() - 1];
  if (last.fileOffset + last.size != config.getMemoryBytes()) {
    refuse("TRP-cfg-105: guest memory of ", config.getMemoryBytes(),
           " bytes is placed in regions of ", last.fileOffset + last.size);
  }
  return regions;
}

kj::Array<HostRegion> hostRegionsOf(MachineConfig::Reader config,
                                    kj::ArrayPtr<const kj::AutoCloseFd> files) {
  auto said = config.getHostMemory();
  KJ_REQUIRE(said.size() == files.size(), "as many regions of the host's memory as fds of it");
  auto regions = kj::heapArrayBuilder<HostRegion>(said.size());
  for (auto i : kj::indices(files)) {
    regions.add(HostRegion{said[i].getGuestAddress(), said[i].getSize(), said[i].getFileOffset(),
                           files[i]});
  }
  return regions.finish();
}

kj::Array<CpuFeature> maskOf(MachineConfig::Reader config) {
  auto names = KJ_MAP(name, config.getCpuMask())->kj::StringPtr {
    return name;
  };
  return cpuFeatures(names);
}

kj::Promise<int> fdOf(Handle::Client handle, kj::StringPtr what) {
  return handle.getFd().then([handle, what](kj::Maybe<int> fd) mutable {
    KJ_IF_MAYBE (number, fd) return *number;
    refuse("TRP-int-101: the ", what, " came without its file descriptor");
  });
}

kj::StringPtr nameOf(BootProtocol protocol) {
  switch (protocol) {
    case BootProtocol::LINUX64:
      return "linux64"_kj;
    case BootProtocol::PVH:
      return "pvh"_kj;
    case BootProtocol::ZIRCON:
      return "zircon"_kj;
  }
  KJ_UNREACHABLE;
}

}  // namespace

BrokerActor::BrokerActor(BrokerGround ground) : ground(kj::mv(ground)) {}

// Lets what comes later wait for `work`.
kj::Promise<void> BrokerActor::step(kj::Promise<void> work) {
  auto forked = work.fork();
  auto both = kj::heapArrayBuilder<kj::Promise<void>>(2);
  both.add(kj::mv(earlierSteps));
  both.add(forked.addBranch());
  earlierSteps = kj::joinPromises(both.finish());
  return forked.addBranch();
}

kj::Promise<void> BrokerActor::afterEarlierSteps() {
  auto earlier = kj::mv(earlierSteps);
  earlierSteps = kj::READY_NOW;
  return earlier;
}

Machine& BrokerActor::requireMachine() {
  return *KJ_REQUIRE_NONNULL(machine, "create() comes first");
}

kj::Promise<void> BrokerActor::create(CreateContext context) {
  return step(kj::evalNow([&]() -> kj::Promise<void> {
    KJ_REQUIRE(machine == nullptr, "create() comes once");
    auto config = context.getParams().getConfig();
    requireSound(config);
    kj::Maybe<int> serial;
    if (config.getHasSerial()) {
      serial = KJ_REQUIRE_NONNULL(ground.serial, "the process was started without fd \"serial\"");
    }
    auto hostFiles = kj::mv(ground.hostMemory);
    MachineSettings settings{
        config.getCpus(),  config.getMemoryBytes(),         maskOf(config), serial, ground.ram,
        regionsOf(config), hostRegionsOf(config, hostFiles)};
    machine.emplace(kj::heap<Machine>(
        kj::mv(settings),
        MachineGround{ground.vm(), ground.fds, ground.mailbox, ground.io.unixEventPort}));
    return kj::READY_NOW;
  }));
}

kj::Promise<void> BrokerActor::addDevice(AddDeviceContext context) {
  auto& machine = requireMachine();
  auto params = context.getParams();
  auto ram = grant(params.getMemory());
  KJ_REQUIRE(!params.getMayGiveBack() || params.getMemory().isReadOnly(),
             "only a device that reads guest RAM and does not write it gives pages back");
  uint16_t index = devices.size();
  auto& device = *devices.add(kj::heap<PluggedDevice>());
  device.ram = kj::mv(ram);
  if (params.getMemory().isReadOnly()) {
    device.deputy.emplace(machine.ram(), params.getMayGiveBack() ? RamDeputy::Right::GIVE_BACK_TOO
                                                                 : RamDeputy::Right::RETURN_CHAINS);
  }

  // Devices describe themselves in any order, and take their slots in the order of the calls.
  auto described = fdOf(context.getParams().getPipe(), "device pipe")
                       .then([this, context, index](int fd) mutable {
                         return connectDevice(index, context.getParams(), fd);
                       });
  auto plugged =
      described
          .then([&machine, &device,
                 turn = kj::mv(slotTurn)](DeviceDescription&& description) mutable {
            return turn.then([&machine, &device, description = kj::mv(description)]() mutable {
              device.function = kj::heap<VirtioPciFunction>(
                  description, *KJ_ASSERT_NONNULL(device.slot), machine.pciSocket());
            });
          })
          .fork();
  slotTurn = plugged.addBranch();
  return step(plugged.addBranch().then([this, &device]() { return attachDevice(device); }));
}

kj::Promise<DeviceDescription> BrokerActor::connectDevice(uint16_t index,
                                                          AddDeviceParams::Reader params,
                                                          int pipe) {
  bool isReplaced = params.getIsReplaced();
  auto lost = [this, isReplaced](uint16_t index, uint32_t process, kj::StringPtr name,
                                 kj::StringPtr why) {
    if (isReplaced) return noteLoss(Loss{index, process, kj::heapString(why)});
    requireMachine().end().report(
        MachineEnd{EndReason::DEVICE_LOST, kj::str(name, " ", why), index});
  };
  auto& slot = *devices[index]->slot.emplace(kj::heap<DeviceSlot>(
      ground.io, index, params.getName(),
      isReplaced ? DeviceSlot::Loss::REPLACED : DeviceSlot::Loss::FINAL, kj::mv(lost)));
  return slot.describe(ground.fds.place(slot.freePlace(), index, pipe));
}

kj::Promise<void> BrokerActor::attachDevice(PluggedDevice& device) {
  auto& function = *KJ_ASSERT_NONNULL(device.function);
  return KJ_ASSERT_NONNULL(device.slot)
      ->attach(kj::mv(device.ram), function.queueFds(), function,
               device.deputy.map([](RamDeputy& deputy) -> RamDeputy& { return deputy; }));
}

RamGrant BrokerActor::grant(MemoryGrant::Reader memory) {
  auto all = requireMachine().ram().regions();
  switch (memory.which()) {
    case MemoryGrant::NONE:
      return RamGrant{nullptr, nullptr};
    case MemoryGrant::READ_ONLY:
      return RamGrant{RamFile{ground.ramReadOnly, RamFile::READ_ONLY}, kj::heapArray(all)};
    case MemoryGrant::RANGES: {
      auto ranges = KJ_MAP(range, memory.getRanges()) {
        return RamRange{range.getGuestAddress(), range.getSize()};
      };
      return RamGrant{RamFile{ground.ram, RamFile::WRITABLE}, cutRanges(all, ranges)};
    }
    case MemoryGrant::ALL:
      return RamGrant{RamFile{ground.ram, RamFile::WRITABLE}, kj::heapArray(all)};
  }
  KJ_FAIL_REQUIRE("a grant of guest memory of an unknown kind", uint16_t(memory.which()));
}

kj::Promise<void> BrokerActor::load(LoadContext context) {
  requireMachine();
  auto files = context.getParams().getFiles();
  return step(takeBootFiles(files).then([this, context, files](TakenFiles&& taken) mutable {
    auto boot = loadNow(taken, files);
    auto results = context.getResults();
    results.setEntry(boot.entry);
    results.setProtocol(nameOf(boot.protocol));
  }));
}

// Puts what is booted from where the filters know it.
kj::Promise<BrokerActor::TakenFiles> BrokerActor::takeBootFiles(BootFiles::Reader files) {
  if (!files.hasKernel()) refuse("TRP-int-101: the kernel came without its file descriptor");
  auto kernel = fdOf(files.getKernel(), "kernel").then([this](int fd) {
    TakenFiles taken;
    taken.kernel = ground.fds.place("kernel", 0, fd);
    return taken;
  });
  auto placed = [this](kj::Promise<TakenFiles> before, Handle::Client handle, kj::StringPtr name,
                       kj::Maybe<kj::AutoCloseFd> TakenFiles::*member) {
    return before.then(
        [this, name, member, fd = fdOf(kj::mv(handle), name)](TakenFiles&& taken) mutable {
          return fd.then([this, name, member, taken = kj::mv(taken)](int fd) mutable {
            taken.*member = ground.fds.place(name, 0, fd);
            return kj::mv(taken);
          });
        });
  };
  if (files.hasInitrd()) {
    kernel = placed(kj::mv(kernel), files.getInitrd(), "initrd", &TakenFiles::initrd);
  }
  if (files.hasDeviceTree()) {
    kernel = placed(kj::mv(kernel), files.getDeviceTree(), "dtb", &TakenFiles::deviceTree);
  }
  return kernel;
}

BootState BrokerActor::loadNow(const TakenFiles& taken, BootFiles::Reader files) {
  auto open = [](const kj::Maybe<kj::AutoCloseFd>& fd, kj::StringPtr what) {
    return fd.map([what](const kj::AutoCloseFd& fd) { return BootFile(fd, what); });
  };
  BootFile kernel(taken.kernel, "kernel");
  auto initrd = open(taken.initrd, "initrd");
  auto deviceTree = open(taken.deviceTree, "device tree");
  auto borrow = [](kj::Maybe<BootFile>& file) {
    return file.map([](BootFile& file) -> const BootFile& { return file; });
  };
  return requireMachine().load(
      kernel, files.getKind(),
      BootExtras{borrow(initrd), files.getCommandLine(), borrow(deviceTree)});
}

kj::Promise<void> BrokerActor::prepare(PrepareContext) {
  return step(afterEarlierSteps().then([this]() {
    // Threads take their own filter in `start`; the process's next one is not for them.
    requireMachine().start([this]() { ground.enterJail("thread:vcpu"); });
    ground.enterJail("ready");
  }));
}

kj::Promise<void> BrokerActor::run(RunContext) {
  return step(afterEarlierSteps().then([this]() {
    ground.enterJail("run");
    requireMachine().run();
    isRunning = true;
  }));
}

kj::Promise<void> BrokerActor::waitForEnd(WaitForEndContext context) {
  return requireMachine().end().whenReported().then(
      [this, context](const MachineEnd* report) mutable -> kj::Promise<void> {
        if (report == nullptr) return waitForEnd(context);  // forgotten: the guest starts anew
        auto end = context.getResults().initEnd();
        end.setReason(report->reason);
        end.setDetail(report->detail);
        end.setDevice(report->device);
        end.setBoot(report->boot);
        return requireMachine().lastWords();
      });
}

kj::Promise<void> BrokerActor::hostEvent(HostEventContext context) {
  uint16_t index = context.getParams().getDevice();
  KJ_REQUIRE(index < devices.size(), "no such device", index);
  KJ_IF_MAYBE (slot, devices[index]->slot) {
    return (*slot)->hostEvent(context.getParams().getEvent());
  }
  return kj::READY_NOW;
}

kj::Promise<void> BrokerActor::deviceReport(DeviceReportContext context) {
  uint16_t index = context.getParams().getDevice();
  return slotOf(index).report().then(
      [context](kj::Own<capnp::MallocMessageBuilder> report) mutable {
        context.getResults().setReport(report->getRoot<DeviceReport>().asReader());
      });
}

kj::Promise<void> BrokerActor::powerButton(PowerButtonContext) {
  requireMachine().pressPowerButton();
  return kj::READY_NOW;
}

kj::Promise<void> BrokerActor::counters(CountersContext context) {
  auto counters = context.getResults().initCounters();
  uint64_t notifyExits = 0;
  uint64_t deviceCalls = 0;
  for (auto& device : devices) {
    KJ_IF_MAYBE (function, device->function) notifyExits += (*function)->notifyExits();
    KJ_IF_MAYBE (slot, device->slot) deviceCalls += (*slot)->callCount();
  }
  counters.setExits(requireMachine().exits());
  counters.setNotifyExits(notifyExits);
  counters.setDeviceCalls(deviceCalls);
  return kj::READY_NOW;
}

kj::Promise<void> BrokerActor::pause(PauseContext) {
  return requireMachine().pause();
}

kj::Promise<void> BrokerActor::resume(ResumeContext) {
  return requireMachine().resume();
}

kj::Promise<void> BrokerActor::reboot(RebootContext context) {
  KJ_REQUIRE(isRunning && !isRebooting, "run() comes first, and one reboot at a time");
  isRebooting = true;
  return takeBootFiles(context.getParams().getFiles())
      .then([this, context](TakenFiles&& files) mutable {
        auto& machine = requireMachine();
        return machine.powerOff()
            .then([this]() { return resetDevices(); })
            .then([&machine]() { return machine.powerOn(); })
            .then([this, &machine, context, files = kj::mv(files)]() mutable {
              KJ_REQUIRE(!machine.end().reported(), "the VM has ended meanwhile");
              loadNow(files, context.getParams().getFiles());
              machine.runAgain();
            });
      })
      .attach(kj::defer([this]() { isRebooting = false; }));
}

// A device that does not let go in time is lost, which ends the VM.
kj::Promise<void> BrokerActor::resetDevices() {
  kj::Vector<kj::Promise<void>> resets;
  for (auto& device : devices) {
    KJ_IF_MAYBE (function, device->function) resets.add((*function)->powerCycle());
  }
  return kj::joinPromises(resets.releaseAsArray());
}

void BrokerActor::noteLoss(Loss loss) {
  losses.add(kj::mv(loss));
  KJ_IF_MAYBE (fulfiller, lossAwaited) {
    (*fulfiller)->fulfill();
    lossAwaited = nullptr;
  }
}

kj::Promise<void> BrokerActor::nextLoss(NextLossContext context) {
  KJ_REQUIRE(lossAwaited == nullptr, "one call at a time");
  if (losses.size() == 0) {
    auto paf = kj::newPromiseAndFulfiller<void>();
    lossAwaited = kj::mv(paf.fulfiller);
    return paf.promise.then([this, context]() mutable { return nextLoss(context); });
  }
  auto results = context.getResults();
  results.setDevice(losses.back().device);
  results.setProcess(losses.back().process);
  results.setWhy(losses.back().why);
  losses.removeLast();
  return kj::READY_NOW;
}

DeviceSlot& BrokerActor::slotOf(uint16_t index) {
  KJ_REQUIRE(index < devices.size(), "no such device", index);
  return *KJ_REQUIRE_NONNULL(devices[index]->slot, "the device has no process yet", index);
}

kj::Promise<void> BrokerActor::replaceDevice(ReplaceDeviceContext context) {
  auto params = context.getParams();
  uint16_t index = params.getDevice();
  bool isBeside = params.getBeside();
  slotOf(index);
  return fdOf(params.getPipe(), "device pipe")
      .then([this, context, index, isBeside](int fd) mutable {
        auto& slot = slotOf(index);
        if (!isBeside) slot.letGo();
        slot.dropPrepared();  // its pipe has the number that the new one is to have
        auto prepared = slot.prepare(ground.fds.place(slot.freePlace(), index, fd));
        context.getResults().setProcess(slot.successorCount());
        return prepared;
      });
}

kj::Promise<void> BrokerActor::resumeDevice(ResumeDeviceContext context) {
  auto& slot = slotOf(context.getParams().getDevice());
  slot.letGo();
  return slot.resume(context.getParams().getOwnFault());
}

kj::Promise<void> BrokerActor::leaveDown(LeaveDownContext context) {
  return slotOf(context.getParams().getDevice()).leaveDown();
}

kj::Promise<void> BrokerActor::handOver(HandOverContext context) {
  return slotOf(context.getParams().getDevice()).handOver();
}

}  // namespace troupe::broker
