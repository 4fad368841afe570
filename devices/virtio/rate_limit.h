#pragma once

#include <kj/common.h>

#include <atomic>
#include <cstdint>

namespace troupe::virtio {

// A token bucket in one word: the time at which all that was taken so far is paid for. What is
// taken may exceed what is in the bucket, and whoever comes next waits until the debt is paid; so a
// request larger than the bucket passes, and is not split.
//
// Shared by threads. Times are nanoseconds of one clock that never goes back.
class TokenBucket {
 public:
  static constexpr uint64_t MAX_PER_SECOND = 1ull << 40;

  // Whether there is such a bucket. `perSecond`: 0 is without limit, otherwise at most
  // MAX_PER_SECOND. `burst`: how much may be taken at once after a rest, from 1 to 3600 seconds'
  // worth.
  static bool accepts(uint64_t perSecond, uint64_t burst);

  // Throws unless accepts(perSecond, burst).
  TokenBucket(uint64_t perSecond, uint64_t burst);
  KJ_DISALLOW_COPY(TokenBucket);

  bool unlimited() const { return perSecond == 0; }

  // How long from `now` until something may be taken; 0: at once.
  uint64_t waitNs(uint64_t now) const;
  void take(uint64_t tokens, uint64_t now);

 private:
  const uint64_t perSecond;
  const uint64_t burstNs;
  std::atomic<uint64_t> paidAt{0};
};

// How much of the host one device's driver may use, all queues together.
struct RateLimit {
  TokenBucket bytes;
  TokenBucket requests;

  bool unlimited() const { return bytes.unlimited() && requests.unlimited(); }
  uint64_t waitNs(uint64_t now) const { return kj::max(bytes.waitNs(now), requests.waitNs(now)); }
  // One request that moves this many bytes.
  void take(uint64_t moved, uint64_t now) {
    bytes.take(moved, now);
    requests.take(1, now);
  }
};

}  // namespace troupe::virtio
