#include "devices/net/kept_state.h"

#include <kj/debug.h>

#include <atomic>
#include <cstring>

namespace troupe::net {
namespace {

constexpr uint64_t CURRENT = 0;       // 0: none yet; 1 and 2: which place counts
constexpr uint64_t FIRST_PLACE = 64;  // behind CURRENT's cache line

// Bits of Record::modes.
constexpr uint16_t PROMISCUOUS = 1 << 0;
constexpr uint16_t ALL_MULTICAST = 1 << 1;
constexpr uint16_t ALL_UNICAST = 1 << 2;
constexpr uint16_t NO_MULTICAST = 1 << 3;
constexpr uint16_t NO_UNICAST = 1 << 4;
constexpr uint16_t NO_BROADCAST = 1 << 5;
constexpr uint16_t UNICAST_OVERFLOWS = 1 << 6;
constexpr uint16_t MULTICAST_OVERFLOWS = 1 << 7;
constexpr uint16_t ALL_MODES = (1 << 8) - 1;

}  // namespace

// Numbers alone, any value of which can be looked at.
struct KeptState::Record {
  uint64_t offloads;
  uint16_t pairs;
  uint16_t modes;
  uint16_t unicastCount;
  uint16_t multicastCount;
  MacAddress mac;
  MacAddress unicast[ReceiveFilter::MAX_ADDRESSES];
  MacAddress multicast[ReceiveFilter::MAX_ADDRESSES];
};

KeptState::KeptState(kj::ArrayPtr<kj::byte> memory) : memory(memory.begin()) {
  static_assert(FIRST_PLACE + 2 * sizeof(Record) <= BYTES, "both places fit");
  KJ_REQUIRE(memory.size() >= BYTES, "too little memory for what the driver says", memory.size());
}

kj::byte* KeptState::place(uint64_t number) const {
  return memory + FIRST_PLACE + (number - 1) * sizeof(Record);
}

void KeptState::note(const DriverSaid& said) {
  auto& filter = said.filter;
  Record record{};
  record.offloads = said.offloads;
  record.pairs = said.pairs;
  record.modes = (filter.promiscuous ? PROMISCUOUS : 0) |
                 (filter.allMulticast ? ALL_MULTICAST : 0) | (filter.allUnicast ? ALL_UNICAST : 0) |
                 (filter.noMulticast ? NO_MULTICAST : 0) | (filter.noUnicast ? NO_UNICAST : 0) |
                 (filter.noBroadcast ? NO_BROADCAST : 0) |
                 (filter.unicast.overflows ? UNICAST_OVERFLOWS : 0) |
                 (filter.multicast.overflows ? MULTICAST_OVERFLOWS : 0);
  record.unicastCount = filter.unicast.overflows ? 0 : filter.unicast.count;
  record.multicastCount = filter.multicast.overflows ? 0 : filter.multicast.count;
  record.mac = said.mac;
  memcpy(record.unicast, filter.unicast.addresses, sizeof(record.unicast));
  memcpy(record.multicast, filter.multicast.addresses, sizeof(record.multicast));

  auto current = reinterpret_cast<uint64_t*>(memory + CURRENT);
  uint64_t other = __atomic_load_n(current, __ATOMIC_RELAXED) == 1 ? 2 : 1;
  memcpy(place(other), &record, sizeof(record));
  // A death is seen by no other processor: the order of this one's stores is all that counts.
  __atomic_store_n(current, other, __ATOMIC_RELEASE);
}

void KeptState::forget() {
  __atomic_store_n(reinterpret_cast<uint64_t*>(memory + CURRENT), uint64_t(0), __ATOMIC_RELEASE);
}

kj::Maybe<DriverSaid> KeptState::recall(const DriverSaid& initial) const {
  uint64_t current =
      __atomic_load_n(reinterpret_cast<const uint64_t*>(memory + CURRENT), __ATOMIC_ACQUIRE);
  if (current == 0) return DriverSaid(initial);
  if (current > 2) return nullptr;
  Record record;
  memcpy(&record, place(current), sizeof(record));
  if (record.pairs == 0 || record.mac.isGroup() || record.mac.isZero()) return nullptr;
  if (record.unicastCount > ReceiveFilter::MAX_ADDRESSES ||
      record.multicastCount > ReceiveFilter::MAX_ADDRESSES || (record.modes & ~ALL_MODES) != 0) {
    return nullptr;
  }

  DriverSaid said;
  said.pairs = record.pairs;
  said.offloads = record.offloads;
  said.mac = record.mac;
  said.filter.promiscuous = record.modes & PROMISCUOUS;
  said.filter.allMulticast = record.modes & ALL_MULTICAST;
  said.filter.allUnicast = record.modes & ALL_UNICAST;
  said.filter.noMulticast = record.modes & NO_MULTICAST;
  said.filter.noUnicast = record.modes & NO_UNICAST;
  said.filter.noBroadcast = record.modes & NO_BROADCAST;
  said.filter.unicast.overflows = record.modes & UNICAST_OVERFLOWS;
  said.filter.multicast.overflows = record.modes & MULTICAST_OVERFLOWS;
  said.filter.unicast.count = record.unicastCount;
  said.filter.multicast.count = record.multicastCount;
  memcpy(said.filter.unicast.addresses, record.unicast, sizeof(record.unicast));
  memcpy(said.filter.multicast.addresses, record.multicast, sizeof(record.multicast));
  return kj::mv(said);
}

}  // namespace troupe::net
