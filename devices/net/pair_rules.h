#pragma once

#include <kj/common.h>

#include <atomic>
#include <cstdint>
#include <mutex>

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
  explicit SharedRules(const NetRules& rules) : rules(rules) {}

  void set(const NetRules& newRules) {
    std::lock_guard<std::mutex> lock(mutex);
    rules = newRules;
    version.fetch_add(1, std::memory_order_release);
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
  std::atomic<uint32_t> version{1};
};

}  // namespace troupe::net
