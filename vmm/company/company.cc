#include "vmm/company/company.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <unistd.h>

#include "broker/broker_profile.h"
#include "devices/balloon/balloon.capnp.h"
#include "devices/balloon/balloon_profile.h"
#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_profile.h"
#include "devices/console/console_profile.h"
#include "devices/console/serial_profile.h"
#include "devices/net/net_profile.h"
#include "devices/recorder/recorder_profile.h"
#include "devices/rng/rng.capnp.h"
#include "devices/rng/rng_profile.h"
#include "devices/vsock/vsock_profile.h"
#include "sandbox/fd_view.h"
#include "sandbox/shared_memory.h"
#include "vmm/company/console_start.h"
#include "vmm/front/front_profile.h"
#include "vmm/net/net_start.h"
#include "vmm/passt/passt_profile.h"
#include "vmm/vsock/vsock_start.h"
#include "vmm/words/quote.h"

namespace troupe {

namespace {

using sandbox::HandedFd;

BlkConfig::Format formatOf(DiskFormat format) {
  return format == DiskFormat::RAW ? BlkConfig::Format::RAW : BlkConfig::Format::QCOW2;
}

void describeFormat(const DiskPlan& disk, BlkConfig::Builder config) {
  if (disk.format == DiskFormat::RAW) return;
  config.setFormat(formatOf(disk.format));
  config.setPath(disk.path);
  auto backing = config.initBacking(disk.backing.size());
  for (uint i = 0; i < disk.backing.size(); i++) {
    backing[i].setPath(disk.backing[i].path);
    backing[i].setFormat(formatOf(disk.backing[i].format));
  }
}

// What a disk's process knows of the disk and its files do not say, for its successor. Of a
// volatile disk that is two bits for each page; none of it is memory before it is written.
kj::Maybe<sandbox::SharedMemory> keptOf(const DiskPlan& disk, const OpenFile& file) {
  KJ_IF_MAYBE (overlay, file.overlay) {
    constexpr uint64_t PAGE = 4096;
    off_t bytes;
    KJ_SYSCALL(bytes = lseek(overlay->memory, 0, SEEK_END));
    uint64_t pagesOfBits = bytes / PAGE / 8 * 2 / PAGE + 2;
    return sandbox::makeSharedMemory("disk-bits", pagesOfBits * PAGE);
  }
  if (disk.readOnly || disk.format == DiskFormat::RAW) return nullptr;
  return sandbox::makeSharedMemory("disk-mappings", BlkConfig::MAPPING_JOURNAL_BYTES);
}

// Launches the actors of one VM one after the other; what they share is kept here.
class Launching {
 public:
  Launching(kj::AsyncIoContext& io, ActorLauncher& launcher, const Programs& programs,
            const ActorProfiles& profiles, kj::ArrayPtr<const RecordingFile> recordings)
      : io(io),
        launcher(launcher),
        programs(programs),
        profiles(profiles),
        recordings(recordings) {}

  Recorder recorder(uint16_t index) {
    auto& recording = recordings[index];
    auto pair = makeSocketPair();
    auto name = kj::str("recorder", index);
    auto start = ofDevices(RECORDER_PROFILE, "troupe-recorder", name,
                           kj::str("the recording of ", recording.device));
    start.fds.add(HandedFd{"control", 0, pair.theirs});
    start.fds.add(HandedFd{"recording", 0, recording.memory, recording.limitBytes});
    start.fds.add(HandedFd{"file", 0, recording.file});
    return {kj::heap<Actor>(io, launcher, kj::mv(start)), kj::mv(pair.ours)};
  }

  kj::Own<Actor> broker(int rpc, int serial, int kvm, const sandbox::SharedMemory& ram,
                        kj::ArrayPtr<const HostMemoryFile> hostMemory) {
    ActorStart start = {
        profiles.of(BROKER_PROFILE), programs.broker, "troupe-broker", "broker", "broker", nullptr};
    start.fds.add(HandedFd{"rpc", 0, rpc});
    start.fds.add(HandedFd{"serial", 0, serial});
    start.fds.add(HandedFd{"kvm", 0, kvm});
    start.fds.add(HandedFd{"ram", 0, ram.writable});
    start.fds.add(HandedFd{"ram_readonly", 0, ram.readOnly});
    for (auto i : kj::indices(hostMemory))
      start.fds.add(HandedFd{"host_memory", kj::uint(i), hostMemory[i].fd});
    start.hostRanges = KJ_MAP(file, hostMemory) {
      return sandbox::FileRange{file.shownOffset, file.size};
    };
    return kj::heap<Actor>(io, launcher, kj::mv(start));
  }

  kj::Own<Actor> serial(int uart, const EndpointFiles& files) {
    capnp::MallocMessageBuilder message(32);
    auto start =
        ofDevices(SERIAL_PROFILE, "troupe-serial", "serial", kj::str("the serial port's output"));
    start.fds.add(HandedFd{"uart", 0, uart});
    describeSerial(files, message.initRoot<ConsoleConfig>(), start.fds);
    start.config = message.getRoot<capnp::AnyPointer>().asReader();
    return kj::heap<Actor>(io, launcher, kj::mv(start));
  }

  DeviceActor blk(uint16_t index, const DiskPlan& disk, const OpenFile& file) {
    capnp::MallocMessageBuilder message(64);
    auto config = message.initRoot<BlkConfig>();
    config.setId(disk.serial);
    config.setReadOnly(disk.readOnly && !disk.isVolatile);
    config.setQueues(disk.queues);
    auto rate = config.getRate();
    rate.setBytesPerSecond(disk.rate.bytesPerSecond);
    rate.setBurstBytes(disk.rate.burstBytes);
    rate.setRequestsPerSecond(disk.rate.itemsPerSecond);
    rate.setBurstRequests(disk.rate.burstItems);
    describeFormat(disk, config);
    KJ_IF_MAYBE (overlay, file.overlay) {
      config.setVolatileBytes(overlay->mostBytes);
    }
    auto name = kj::str("blk", index);
    auto start = ofDevices(BLK_PROFILE, "troupe-blk", name, kj::str("disk ", quote(disk.path)));
    start.config = message.getRoot<capnp::AnyPointer>().asReader();
    start.fds.add(HandedFd{"disk", 0, file.fd});
    for (uint i = 0; i < file.backing.size(); i++)
      start.fds.add(HandedFd{"backing", i, file.backing[i]});
    KJ_IF_MAYBE (overlay, file.overlay) {
      start.fds.add(HandedFd{"overlay", 0, overlay->memory, overlay->mostBytes});
    }
    auto kept = isReplaced(start.profile) ? keptOf(disk, file) : nullptr;
    KJ_IF_MAYBE (memory, kept) {
      start.fds.add(HandedFd{"kept", 0, memory->writable});
    }
    return device(kj::mv(start));
  }

  DeviceActor console(kj::ArrayPtr<const ConsolePlan> plans,
                      kj::ArrayPtr<const EndpointFiles> files) {
    capnp::MallocMessageBuilder message(64);
    auto start =
        ofDevices(CONSOLE_PROFILE, "troupe-console", "console0", kj::str("the virtio console"));
    describeConsoles(plans, files, message.initRoot<ConsoleConfig>(), start.fds);
    start.config = message.getRoot<capnp::AnyPointer>().asReader();
    return device(kj::mv(start));
  }

  // With `user`, `socket` leads to its helper.
  DeviceActor net(uint16_t index, const NetPlan& plan, const NetFiles& files, int socket) {
    capnp::MallocMessageBuilder message(64);
    describeNet(plan, files, message.initRoot<NetConfig>());
    auto name = kj::str("net", index);
    auto start = ofDevices(NET_PROFILE, "troupe-net", name, kj::str("network ", netName(plan)));
    start.config = message.getRoot<capnp::AnyPointer>().asReader();
    handNet(files, socket, start.fds);
    // On somebody else's stream no successor knows where the next frame begins.
    return device(kj::mv(start), files.kind != NetFiles::Kind::STREAM);
  }

  kj::Own<Actor> passt(uint16_t index, const NetPlan& plan, const NetFiles& files, int socket) {
    auto name = kj::str("passt", index);
    ActorStart start = {profiles.of(PASST_PROFILE),
                        KJ_ASSERT_NONNULL(files.helper),
                        "passt",
                        name,
                        "passt",
                        kj::str("what reaches the network for ", netName(plan)),
                        {},
                        nullptr,
                        passtArguments(plan),
                        PASST_NOISE};
    auto nothing = openNull();
    start.fds.add(HandedFd{"null", 0, nothing});
    start.fds.add(HandedFd{"null", 1, nothing});
    start.fds.add(HandedFd{"frames", 0, socket});
    return kj::heap<Actor>(io, launcher, kj::mv(start));
  }

  DeviceActor balloon(const BalloonPlan& plan) {
    capnp::MallocMessageBuilder message(32);
    message.initRoot<BalloonConfig>().setStatistics(plan.stats);
    auto start =
        ofDevices(BALLOON_PROFILE, "troupe-balloon", "balloon0", kj::str("the memory balloon"));
    start.config = message.getRoot<capnp::AnyPointer>().asReader();
    auto actor = device(kj::mv(start));
    actor.mayGiveBack = true;
    return actor;
  }

  DeviceActor rng(const RatePlan& rate) {
    capnp::MallocMessageBuilder message(32);
    auto config = message.initRoot<RngConfig>();
    config.setBytesPerSecond(rate.bytesPerSecond);
    config.setBurstBytes(rate.burstBytes);
    config.setRequestsPerSecond(rate.itemsPerSecond);
    config.setBurstRequests(rate.burstItems);
    auto start =
        ofDevices(RNG_PROFILE, "troupe-rng", "rng0", kj::str("the random number generator"));
    start.config = message.getRoot<capnp::AnyPointer>().asReader();
    return device(kj::mv(start));
  }

  DeviceActor vsock(const VsockPlan& plan, const VsockFiles& files) {
    capnp::MallocMessageBuilder message(64);
    auto start = ofDevices(VSOCK_PROFILE, "troupe-vsock", "vsock0",
                           kj::str("the socket device, cid ", files.cid));
    start.config = describeVsock(plan, files, message);
    handVsock(files, start.fds);
    return device(kj::mv(start), true, "connector"_kj);
  }

 private:
  // One of the processes of the devices' executable, whose kind stands behind "troupe-".
  ActorStart ofDevices(const sandbox::Profile& profile, kj::StringPtr argv0, kj::StringPtr name,
                       kj::String role) {
    constexpr kj::StringPtr PREFIX = "troupe-"_kj;
    return {profiles.of(profile),       programs.devices, argv0, name,
            argv0.slice(PREFIX.size()), kj::mv(role)};
  }

  // `line`: see Succession. `mayBeReplaced`: another process can go on where it stops; its profile
  // says whether one does.
  DeviceActor device(ActorStart start, bool mayBeReplaced = true,
                     kj::Maybe<kj::StringPtr> line = nullptr) {
    auto beside = Succession::Beside::ALLOWED;
    for (auto& recording : recordings) {
      if (recording.device != start.name) continue;
      recording.begin(start.kind, start.argv0, start.config);
      start.fds.add(HandedFd{"flight", 0, recording.memory, recording.limitBytes});
      beside = Succession::Beside::NOT_ALLOWED;  // one process writes at a time
    }
    if (mayBeReplaced && isReplaced(start.profile)) {
      auto succession = kj::heap<Succession>(start, beside, line);
      auto counters = kj::heap<CountersView>(succession->counters());
      auto first = succession->launch(io, launcher);
      DeviceActor device = {kj::mv(first.build),     kj::mv(first.actor),
                            kj::mv(first.brokerEnd), kj::mv(first.brokerObject),
                            kj::mv(first.witness),   kj::mv(succession),
                            kj::mv(first.line)};
      device.counters = kj::mv(counters);
      return device;
    }
    auto pipe = makeSocketPair();
    start.fds.add(HandedFd{"rpc", 0, pipe.theirs});
    SocketPair called;
    KJ_IF_MAYBE (fd, line) {
      called = makeSocketPair();
      start.fds.add(HandedFd{*fd, 0, called.theirs});
    }
    auto object = sandbox::objectOf(pipe.ours);
    // No journals: nobody takes its place.
    auto kept = sandbox::makeSharedMemory("counters", CountersView::BYTES);
    bool counts = hasFd(start.profile, "journal");
    if (counts) start.fds.add(HandedFd{"journal", 0, kept.writable});
    DeviceActor device = {{},
                          kj::heap<Actor>(io, launcher, kj::mv(start)),
                          kj::mv(pipe.ours),
                          kj::mv(object),
                          {},
                          nullptr,
                          kj::mv(called.ours)};
    if (counts) device.counters = kj::heap<CountersView>(kept.readOnly);
    return device;
  }

  kj::AsyncIoContext& io;
  ActorLauncher& launcher;
  const Programs& programs;
  const ActorProfiles& profiles;
  const kj::ArrayPtr<const RecordingFile> recordings;
};

}  // namespace

uint32_t controllersOf(const VmPlan& plan, const ActorProfiles& profiles) {
  uint32_t controllers = sandbox::controllersOf(profiles.of(BROKER_PROFILE)) |
                         sandbox::controllersOf(profiles.of(SERIAL_PROFILE)) |
                         sandbox::controllersOf(profiles.of(FRONT_PROFILE));
  if (plan.disks.size() > 0) controllers |= sandbox::controllersOf(profiles.of(BLK_PROFILE));
  if (plan.consoles.size() > 0) controllers |= sandbox::controllersOf(profiles.of(CONSOLE_PROFILE));
  if (plan.nets.size() > 0) controllers |= sandbox::controllersOf(profiles.of(NET_PROFILE));
  for (auto& net : plan.nets) {
    if (net.backend == NetPlan::Backend::USER)
      controllers |= sandbox::controllersOf(profiles.of(PASST_PROFILE));
  }
  if (plan.records.devices.size() > 0)
    controllers |= sandbox::controllersOf(profiles.of(RECORDER_PROFILE));
  if (plan.rng) controllers |= sandbox::controllersOf(profiles.of(RNG_PROFILE));
  if (plan.balloon != nullptr) controllers |= sandbox::controllersOf(profiles.of(BALLOON_PROFILE));
  if (plan.vsock != nullptr) controllers |= sandbox::controllersOf(profiles.of(VSOCK_PROFILE));
  return controllers;
}

Company launchCompany(kj::AsyncIoContext& io, ActorLauncher& launcher, const VmPlan& plan,
                      const VmFiles& files, const Programs& programs,
                      const ActorProfiles& profiles) {
  Launching launching(io, launcher, programs, profiles, files.recordings);
  Company company;
  auto rpc = makeSocketPair();
  auto uart = makeSocketPair();
  company.broker = launching.broker(rpc.theirs, uart.ours, files.kvm, files.ram, files.hostMemory);
  company.brokerPipe = kj::mv(rpc.ours);
  KJ_IF_MAYBE (balloon, plan.balloon) {
    company.balloon = static_cast<uint16_t>(company.devices.size());
    company.devices.add(launching.balloon(*balloon));
  }
  company.firstDisk = static_cast<uint16_t>(company.devices.size());
  for (uint16_t i = 0; i < plan.disks.size(); i++) {
    company.devices.add(launching.blk(i, plan.disks[i], files.disks[i]));
  }
  if (plan.consoles.size() > 0) {
    for (auto& console : plan.consoles) {
      if (console.size != ConsolePlan::Size::OF_THE_TERMINAL) continue;
      company.terminalConsole = static_cast<uint16_t>(company.devices.size());
    }
    company.devices.add(launching.console(plan.consoles, files.consoles));
  }
  company.firstNet = static_cast<uint16_t>(company.devices.size());
  for (uint16_t i = 0; i < plan.nets.size(); i++) {
    if (plan.nets[i].backend == NetPlan::Backend::USER) {
      auto pair = makeFrameSockets();
      auto device = launching.net(i, plan.nets[i], files.nets[i], pair.ours);
      device.helper = DeviceHelper{
          company.helpers.size(),
          [&io, &launcher, &plan, &files, &programs, &profiles, i](kj::AutoCloseFd end) {
            return Launching(io, launcher, programs, profiles, nullptr)
                .passt(i, plan.nets[i], files.nets[i], end);
          }};
      company.devices.add(kj::mv(device));
      company.helpers.add(launching.passt(i, plan.nets[i], files.nets[i], pair.theirs));
    } else {
      company.devices.add(launching.net(i, plan.nets[i], files.nets[i], -1));
    }
  }
  if (plan.rng) company.devices.add(launching.rng(plan.rngRate));
  KJ_IF_MAYBE (vsock, plan.vsock) {
    company.vsock = static_cast<uint16_t>(company.devices.size());
    company.devices.add(launching.vsock(*vsock, KJ_ASSERT_NONNULL(files.vsock)));
  }
  company.launchSerial = [&io, &launcher, &files, &programs, &profiles,
                          end = kj::mv(uart.theirs)]() {
    return Launching(io, launcher, programs, profiles, nullptr).serial(end, files.serial);
  };
  company.serial = company.launchSerial();
  for (uint16_t i = 0; i < files.recordings.size(); i++)
    company.recorders.add(launching.recorder(i));
  return company;
}

kj::Own<Actor> launchFront(kj::AsyncIoContext& io, ActorLauncher& launcher,
                           const Programs& programs, const ActorProfiles& profiles, int pipe) {
  ActorStart start = {
      profiles.of(FRONT_PROFILE), programs.front, "troupe-front", "front", "front", nullptr};
  start.fds.add(HandedFd{"rpc", 0, pipe});
  return kj::heap<Actor>(io, launcher, kj::mv(start));
}

}  // namespace troupe
