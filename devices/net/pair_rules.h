#pragma once

#include <kj/common.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "devices/net/capture.h"
#include "devices/net/frame.h"
#include "devices/net/offloads.h"
#include "devices/net/receive_filter.h"
#include "devices/virtio/rate_limit.h"

namespace troupe::net {

// What all queue pairs of one device have in common, for its life.
struct NetSettings {
  MacAddress mac;
  bool spoofFilter;
  virtio::RateLimit& receiveLimit;   // frames to the guest
  virtio::RateLimit& transmitLimit;  // and from it
  Capture* capture;                  // null: nobody looks on
  uint32_t spinMicros;
};

// What the driver changes by its control queue, and the host by events. A value.
struct NetRules {
  explicit NetRules(const MacAddress& mac) : filter(mac) {}

  Offloads toGuest;
  ReceiveFilter filter;
  bool linkUp = true;  // as the user has it; nothing passes while it is not
};

// The rules, written by the main thread and looked at by each pair's: a thread goes on with those
// it has until it looks again.
class SharedRules {
 public:
  // ALL: those that were set before can be had again, for a replay.
  enum class Keeps { LAST, ALL };
  explicit SharedRules(const NetRules& rules, Keeps keeps = Keeps::LAST)
      : rules(rules), keeps(keeps) {
    if (keeps == Keeps::ALL) all.push_back(rules);
  }

  void set(const NetRules& newRules) {
    std::lock_guard<std::mutex> lock(mutex);
    rules = newRules;
    if (keeps == Keeps::ALL) all.push_back(rules);
    version.fetch_add(1, std::memory_order_release);
  }

  // Copies the rules of a version, from 1 on, to `mine`. False when there is none such, or not yet.
  bool recall(uint64_t wanted, NetRules& mine) {
    std::lock_guard<std::mutex> lock(mutex);
    if (wanted == 0 || wanted > all.size()) return false;
    mine = all[wanted - 1];
    return true;
  }

  // Copies the rules to `mine` when they are newer than `seen`.
  void refresh(NetRules& mine, uint32_t& seen) {
    uint32_t now = version.load(std::memory_order_acquire);
    if (now == seen) return;
    std::lock_guard<std::mutex> lock(mutex);
    mine = rules;
    seen = now;
  }

 private:
  std::mutex mutex;  // a mutex the thread sanitizer knows, unlike KJ's
  NetRules rules;
  const Keeps keeps;
  std::vector<NetRules> all;  // by version, from 1 on; or none
  std::atomic<uint32_t> version{1};
};

}  // namespace troupe::net
