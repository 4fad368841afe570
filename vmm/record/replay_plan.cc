#include "vmm/record/replay_plan.h"

#include <kj/debug.h>

#include <cstring>

#include "devices/balloon/balloon.capnp.h"
#include "devices/blk/blk.capnp.h"
#include "devices/console/console.capnp.h"
#include "devices/net/net.capnp.h"
#include "devices/rng/rng.capnp.h"
#include "devices/vsock/vsock.capnp.h"

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
              ReplayNeeds& needs) {
  auto space = configSpaceOf(events);
  uint64_t sectors = 0;
  KJ_REQUIRE(space.size() >= sizeof(sectors), "no disk has such a configuration space");
  memcpy(&sectors, space.begin(), sizeof(sectors));
  KJ_REQUIRE(sectors <= MOST_DISK_BYTES / 512, "no disk is so large", sectors);
  uint64_t bytes = largestDisk(events, index, sectors * 512);
  KJ_REQUIRE(bytes <= MOST_DISK_BYTES, "no disk is so large", bytes);

  auto given = head.getConfig().getAs<BlkConfig>();
  auto config = needs.config->initRoot<BlkConfig>();
  config.setReadOnly(given.getReadOnly());
  config.setId(given.getId());
  config.setQueues(given.getQueues());
  config.setSpinMicroseconds(given.getSpinMicroseconds());
  config.setReplayed(space);
  lift(config.initRate());
  // It has one even when the disk holds nothing.
  needs.diskBytes = kj::max((bytes + 4095) & ~uint64_t(4095), uint64_t(4096));
}

void startConsole(Recording::Reader head, ReplayNeeds& needs) {
  auto given = head.getConfig().getAs<ConsoleConfig>().getPorts();
  KJ_REQUIRE(given.size() >= 1 && given.size() <= MOST_PORTS, "no console has so many ports");
  auto ports = needs.config->initRoot<ConsoleConfig>().initPorts(given.size());
  for (uint16_t i = 0; i < given.size(); i++) {
    ports.setWithCaveats(i, given[i]);
    ports[i].setBackend(ConsolePort::Backend::FILE);
    ports[i].setFdIndex(i);
    ports[i].setReplay(true);
  }
  needs.outputs = given.size();
}

void startNet(Recording::Reader head, ReplayNeeds& needs) {
  auto given = head.getConfig().getAs<NetConfig>();
  auto config = needs.config->initRoot<NetConfig>();
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
void startVsock(Recording::Reader head, ReplayNeeds& needs) {
  auto given = head.getConfig().getAs<VsockConfig>();
  needs.config->initRoot<VsockConfig>().setGuestCid(given.getGuestCid());
  needs.connector = true;
}

}  // namespace

ReplayNeeds replayNeeds(Recording::Reader head, const EventList& events, const FlightIndex& index) {
  kj::StringPtr kind = head.getKind();
  ReplayNeeds needs{kj::heap<capnp::MallocMessageBuilder>()};
  if (kind == "blk") {
    startBlk(head, events, index, needs);
  } else if (kind == "console") {
    startConsole(head, needs);
  } else if (kind == "net") {
    startNet(head, needs);
  } else if (kind == "vsock") {
    startVsock(head, needs);
  } else if (kind == "balloon") {
    auto given = head.getConfig().getAs<BalloonConfig>();
    needs.config->initRoot<BalloonConfig>().setStatistics(given.getStatistics());
  } else {
    needs.config->initRoot<RngConfig>();
  }
  return needs;
}

}  // namespace troupe
