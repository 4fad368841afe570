// What a device of each kind is replayed with.

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/balloon/balloon.capnp.h"
#include "devices/balloon/balloon_profile.h"
#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_profile.h"
#include "devices/console/console.capnp.h"
#include "devices/console/console_profile.h"
#include "devices/net/net.capnp.h"
#include "devices/net/net_profile.h"
#include "devices/rng/rng.capnp.h"
#include "devices/rng/rng_profile.h"
#include "devices/vsock/vsock.capnp.h"
#include "devices/vsock/vsock_profile.h"
#include "sandbox/shared_memory.h"
#include "vmm/error_codes.h"
#include "vmm/quote.h"
#include "vmm/record/replayed_device.h"
#include "vmm/user_error.h"

namespace troupe {

namespace {

constexpr size_t MOST_PORTS = 8;
constexpr uint64_t MOST_DISK_BYTES = uint64_t(1) << 56;

// A rate would only make it slow.
void lift(BlkConfig::RateLimit::Builder rate) {
  rate.setBytesPerSecond(0);
  rate.setRequestsPerSecond(0);
}

// As many bytes as the disk ever has in the recording: a device that is told of a larger one reads
// its end.
uint64_t largestDisk(const EventList& events, const FlightIndex& index, uint64_t bytes) {
  for (size_t i = 0; i < index.end(); i++) {
    events.with(i, [&](FlightEvent::Reader event) {
      if (event.isHostEvent() && event.getHostEvent().isDiskSize())
        bytes = kj::max(bytes, event.getHostEvent().getDiskSize());
    });
  }
  return bytes;
}

kj::Array<kj::byte> configSpaceOf(const EventList& events) {
  KJ_REQUIRE(events.size() > 0, "it has no events");
  return events.with(0, [](FlightEvent::Reader event) {
    KJ_REQUIRE(event.isBegan(), "it does not begin with the device");
    return kj::heapArray<kj::byte>(event.getBegan().getConfig());
  });
}

void startBlk(Recording::Reader head, const EventList& events, const FlightIndex& index,
              ReplayStart& start) {
  auto space = configSpaceOf(events);
  uint64_t sectors = 0;
  KJ_REQUIRE(space.size() >= sizeof(sectors), "no disk has such a configuration space");
  memcpy(&sectors, space.begin(), sizeof(sectors));
  KJ_REQUIRE(sectors <= MOST_DISK_BYTES / 512, "no disk is so large", sectors);
  uint64_t bytes = largestDisk(events, index, sectors * 512);
  KJ_REQUIRE(bytes <= MOST_DISK_BYTES, "no disk is so large", bytes);

  auto given = head.getConfig().getAs<BlkConfig>();
  auto config = start.config->initRoot<BlkConfig>();
  config.setReadOnly(given.getReadOnly());
  config.setId(given.getId());
  config.setQueues(given.getQueues());
  config.setSpinMicroseconds(given.getSpinMicroseconds());
  config.setReplayed(space);
  lift(config.initRate());
  auto disk = sandbox::makeSharedMemory("replayed-disk", (bytes + 4095) & ~uint64_t(4095));
  start.fds.add(sandbox::HandedFd{"disk", 0, disk.writable});
  start.files.add(kj::mv(disk.writable));
}

void startConsole(Recording::Reader head, ReplayStart& start) {
  auto given = head.getConfig().getAs<ConsoleConfig>().getPorts();
  KJ_REQUIRE(given.size() >= 1 && given.size() <= MOST_PORTS, "no console has so many ports");
  auto ports = start.config->initRoot<ConsoleConfig>().initPorts(given.size());
  for (uint16_t i = 0; i < given.size(); i++) {
    ports.setWithCaveats(i, given[i]);
    ports[i].setBackend(ConsolePort::Backend::FILE);
    ports[i].setFdIndex(i);
    ports[i].setReplay(true);
    int fd;
    KJ_SYSCALL(fd = open("/dev/null", O_WRONLY | O_CLOEXEC | O_APPEND));
    start.files.add(kj::AutoCloseFd(fd));
    start.fds.add(sandbox::HandedFd{"out", i, fd});
  }
}

void startNet(Recording::Reader head, ReplayStart& start) {
  auto given = head.getConfig().getAs<NetConfig>();
  auto config = start.config->initRoot<NetConfig>();
  config.setMac(given.getMac());
  config.setMtu(given.getMtu());
  config.setQueuePairs(given.getQueuePairs());
  config.setBackend(given.getBackend());
  config.setSocketHasHeaders(given.getSocketHasHeaders());
  config.setOffloads(given.getOffloads());
  config.setSpinMicroseconds(0);
  config.setSpoofFilter(given.getSpoofFilter());
  config.setLinkDown(given.getLinkDown());
}

// Nobody is asked, but its profile wants somebody to ask.
void startVsock(Recording::Reader head, ReplayStart& start) {
  auto given = head.getConfig().getAs<VsockConfig>();
  start.config->initRoot<VsockConfig>().setGuestCid(given.getGuestCid());
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  for (int fd : fds)
    start.files.add(kj::AutoCloseFd(fd));
  start.fds.add(sandbox::HandedFd{"connector", 0, fds[0]});
}

struct Kind {
  kj::StringPtr name;
  kj::StringPtr program;
  const sandbox::Profile& profile;
};

const Kind KINDS[] = {
    {"balloon"_kj, "troupe-balloon"_kj, BALLOON_PROFILE},
    {"blk"_kj, "troupe-blk"_kj, BLK_PROFILE},
    {"console"_kj, "troupe-console"_kj, CONSOLE_PROFILE},
    {"net"_kj, "troupe-net"_kj, NET_PROFILE},
    {"rng"_kj, "troupe-rng"_kj, RNG_PROFILE},
    {"vsock"_kj, "troupe-vsock"_kj, VSOCK_PROFILE},
};

const Kind& kindOf(kj::StringPtr name) {
  for (auto& kind : KINDS)
    if (kind.name == name) return kind;
  auto names = kj::strArray(
      KJ_MAP(kind, KINDS) { return kind.name; }, ", ");
  UserError(codes::REPLAY_KIND, kj::str("a device of kind ", quote(name),
                                        " cannot be replayed; kinds that can are ", names))
      .raise();
}

}  // namespace

ReplayStart replayStart(Recording::Reader head, const EventList& events, const FlightIndex& index) {
  kj::StringPtr kind = head.getKind();
  ReplayStart start{kindOf(kind).profile, kj::heap<capnp::MallocMessageBuilder>()};
  if (kind == "blk") {
    startBlk(head, events, index, start);
  } else if (kind == "console") {
    startConsole(head, start);
  } else if (kind == "net") {
    startNet(head, start);
  } else if (kind == "vsock") {
    startVsock(head, start);
  } else if (kind == "balloon") {
    auto given = head.getConfig().getAs<BalloonConfig>();
    start.config->initRoot<BalloonConfig>().setStatistics(given.getStatistics());
  } else {
    start.config->initRoot<RngConfig>();
  }
  return start;
}

kj::StringPtr replayedProgram(kj::StringPtr kind) {
  return kindOf(kind).program;
}

}  // namespace troupe
