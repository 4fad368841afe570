#include "devices/blk/cluster_bits.h"

#include <kj/debug.h>

namespace troupe::blk {

// calloc() of what is large is a mapping whose pages are the kernel's zero page until written.
ClusterBits::ClusterBits(uint64_t count, kj::ArrayPtr<kj::byte> kept)
    : words(static_cast<Word*>(calloc(bytesFor(count) / sizeof(Word), sizeof(Word)))),
      kept(kept == nullptr ? nullptr : reinterpret_cast<Word*>(kept.begin())) {
  static_assert(sizeof(Word) == sizeof(uint64_t), "zeroes are a valid Word");
  KJ_REQUIRE(words != nullptr, "no memory for the disk's bits", count);
  KJ_REQUIRE(kept == nullptr || kept.size() >= bytesFor(count), "too little is kept", kept.size());
}

uint64_t ClusterBits::run(uint64_t first, uint64_t most, bool value) const {
  uint64_t flip = value ? 0 : ~uint64_t(0);
  uint64_t end = first + most;
  for (uint64_t i = first; i < end; i += 64 - i % 64) {
    uint64_t others = ~(word(i) ^ flip) >> (i % 64);
    if (others == 0) continue;
    // The first may have changed since.
    return kj::max(kj::min(i + __builtin_ctzll(others), end) - first, uint64_t(1));
  }
  return most;
}

template <typename Step>
void ClusterBits::forWords(uint64_t first, uint64_t count, Step&& step) const {
  uint64_t end = first + count;
  for (uint64_t i = first; i < end;) {
    uint64_t here = kj::min(64 - i % 64, end - i);
    uint64_t mask = (here == 64 ? ~uint64_t(0) : (uint64_t(1) << here) - 1) << (i % 64);
    step(i / 64, mask);
    i += here;
  }
}

uint64_t ClusterBits::countOf(uint64_t first, uint64_t count) const {
  uint64_t ones = 0;
  forWords(first, count, [&](uint64_t index, uint64_t mask) {
    ones += __builtin_popcountll(words.get()[index].load(std::memory_order_relaxed) & mask);
  });
  return ones;
}

void ClusterBits::set(uint64_t first, uint64_t count) {
  forWords(first, count, [this](uint64_t index, uint64_t mask) {
    if (kept != nullptr) kept[index].fetch_or(mask, std::memory_order_release);
    words.get()[index].fetch_or(mask, std::memory_order_release);
  });
}

void ClusterBits::clear(uint64_t first, uint64_t count) {
  forWords(first, count, [this](uint64_t index, uint64_t mask) {
    if (kept != nullptr) kept[index].fetch_and(~mask, std::memory_order_release);
    words.get()[index].fetch_and(~mask, std::memory_order_release);
  });
}

}  // namespace troupe::blk
