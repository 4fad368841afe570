#include "devices/virtio/rate_limit.h"

#include <kj/debug.h>

namespace troupe::virtio {
namespace {

constexpr uint64_t SECOND_NS = 1000000000;
constexpr uint64_t MAX_BURST_SECONDS = 3600;

// The product needs more than 64 bits.
uint64_t nanosecondsOf(uint64_t tokens, uint64_t perSecond) {
  __extension__ using Wide = unsigned __int128;
  Wide time = Wide(tokens) * SECOND_NS / perSecond;
  return time > UINT64_MAX / 4 ? UINT64_MAX / 4 : uint64_t(time);
}

}  // namespace

bool TokenBucket::accepts(uint64_t perSecond, uint64_t burst) {
  if (perSecond == 0) return true;
  return perSecond <= MAX_PER_SECOND && burst >= 1 &&
         nanosecondsOf(burst, perSecond) <= MAX_BURST_SECONDS * SECOND_NS;
}

TokenBucket::TokenBucket(uint64_t perSecond, uint64_t burst)
    : perSecond(perSecond), burstNs(perSecond == 0 ? 0 : nanosecondsOf(burst, perSecond)) {
  KJ_REQUIRE(accepts(perSecond, burst), "a rate or its burst is out of range", perSecond, burst);
}

uint64_t TokenBucket::waitNs(uint64_t now) const {
  if (unlimited()) return 0;
  uint64_t paid = paidAt.load(std::memory_order_relaxed);
  return paid > now ? paid - now : 0;
}

// `paidAt` lies at most `burstNs` in the past: a longer rest earns no more.
void TokenBucket::take(uint64_t tokens, uint64_t now) {
  if (unlimited()) return;
  uint64_t price = nanosecondsOf(tokens, perSecond);
  uint64_t least = now > burstNs ? now - burstNs : 0;
  uint64_t paid = paidAt.load(std::memory_order_relaxed);
  while (!paidAt.compare_exchange_weak(paid, kj::max(paid, least) + price,
                                       std::memory_order_relaxed)) {
  }
}

}  // namespace troupe::virtio
