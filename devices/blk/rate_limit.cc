#include "devices/blk/rate_limit.h"

#include <kj/debug.h>

namespace troupe::blk {
namespace {

constexpr uint64_t SECOND_NS = 1000000000;
constexpr uint64_t MAX_BURST_SECONDS = 3600;

}  // namespace

TokenBucket::TokenBucket(uint64_t perSecond, uint64_t burst)
    : perSecond(perSecond), burstNs(perSecond == 0 ? 0 : nanoseconds(burst)) {
  if (perSecond == 0) return;
  KJ_REQUIRE(
      perSecond <= MAX_PER_SECOND && burst >= 1 && burstNs <= MAX_BURST_SECONDS * SECOND_NS,
      "TRP-blk-009: a rate is at most 1 TiB or 2^40 requests in a second, its burst from 1 to "
      "an hour's worth",
      perSecond, burst);
}

// The product needs more than 64 bits.
uint64_t TokenBucket::nanoseconds(uint64_t tokens) const {
  __extension__ using Wide = unsigned __int128;
  Wide time = Wide(tokens) * SECOND_NS / perSecond;
  return time > UINT64_MAX / 4 ? UINT64_MAX / 4 : uint64_t(time);
}

uint64_t TokenBucket::waitNs(uint64_t now) const {
  if (unlimited()) return 0;
  uint64_t paid = paidAt.load(std::memory_order_relaxed);
  return paid > now ? paid - now : 0;
}

// `paidAt` lies at most `burstNs` in the past: a longer rest earns no more.
void TokenBucket::take(uint64_t tokens, uint64_t now) {
  if (unlimited()) return;
  uint64_t price = nanoseconds(tokens);
  uint64_t least = now > burstNs ? now - burstNs : 0;
  uint64_t paid = paidAt.load(std::memory_order_relaxed);
  while (!paidAt.compare_exchange_weak(paid, kj::max(paid, least) + price,
                                       std::memory_order_relaxed)) {
  }
}

}  // namespace troupe::blk
