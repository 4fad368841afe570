#include "broker/device_answers.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include "broker/refusal.h"

namespace troupe::broker {

namespace {

constexpr uint32_t MAX_RESET_DEADLINE_MS = 10000;
constexpr uint32_t MOST_STATISTICS = 64;  // BalloonReport.statistics

}  // namespace

kj::String quoted(kj::StringPtr text) {
  constexpr size_t LONGEST = 200;
  kj::Vector<char> line;
  for (char c : text.slice(0, kj::min(text.size(), LONGEST))) {
    line.add(c >= ' ' && c <= '~' ? c : '?');
  }
  line.add('\0');
  return kj::String(line.releaseAsArray());
}

DeviceDescription checkedDescription(kj::StringPtr name, DeviceInfo::Reader info) {
  auto demand = [name](bool holds, auto&&... what) {
    if (!holds) refuse("TRP-pci-002: device ", name, " describes itself wrongly: ", what...);
  };
  auto sizes = info.getQueueSizes();
  demand(sizes.size() <= MAX_QUEUES, sizes.size(), " queues; at most ", MAX_QUEUES, " are allowed");
  for (auto size : sizes) {
    bool isPowerOfTwo = (size & (size - 1)) == 0;
    demand(size >= 2 && size <= 32768 && isPowerOfTwo, "a queue of size ", size,
           "; a size is a power of two from 2 to 32768");
  }
  uint16_t type = info.getDeviceType();
  demand(type >= 1 && type <= 63, "device type ", type, "; virtio knows 1 to 63");
  auto config = info.getConfig();
  demand(config.size() <= MAX_CONFIG_SIZE, "a configuration space of ", config.size(),
         " bytes; at most ", MAX_CONFIG_SIZE, " are allowed");
  auto mask = info.getConfigWriteMask();
  demand(mask.size() == config.size(), "a write mask of ", mask.size(), " bytes for ",
         config.size(), " bytes of configuration; both have the same length");

  DeviceDescription description;
  description.deviceType = type;
  description.features = info.getFeatures();
  description.queueSizes = KJ_MAP(size, sizes) {
    return size;
  };
  description.config = kj::heapArray<kj::byte>(config);
  description.configWriteMask = kj::heapArray<kj::byte>(mask);
  return description;
}

uint32_t resetDeadlineOf(DeviceInfo::Reader info) {
  return kj::max(1u, kj::min(info.getResetDeadlineMs(), MAX_RESET_DEADLINE_MS));
}

void copyReport(DeviceReport::Reader from, DeviceReport::Builder to) {
  if (!from.isBalloon()) return to.setNothing();
  auto balloon = from.getBalloon();
  auto copy = to.initBalloon();
  copy.setTargetPages(balloon.getTargetPages());
  copy.setActualPages(balloon.getActualPages());
  copy.setFeatures(balloon.getFeatures());
  copy.setGivenBackBytes(balloon.getGivenBackBytes());
  copy.setFreePageBytes(balloon.getFreePageBytes());
  copy.setHasStatistics(balloon.getHasStatistics());
  copy.setStatisticsAgeMs(balloon.getStatisticsAgeMs());
  auto statistics = balloon.getStatistics();
  KJ_REQUIRE(statistics.size() <= MOST_STATISTICS, "more statistics than there can be");
  copy.setStatistics(statistics);
}

}  // namespace troupe::broker
