#pragma once

#include <kj/common.h>

#include <cstdint>

namespace troupe::console {

// How far a stream of bytes had come when a driver was last told of its chains, in two words that
// outlive the process.
//
// Telling a driver is one store of the used index (§2.7.8), and a process may die right before or
// right behind it. So the place is noted before, in the word that does not belong to the index the
// driver has: whoever comes next finds by the index which of the two counts. What a process left
// that somebody took over may be any place: it is for the caller to say which there can be.
class ToldPlace {
 public:
  using Words = uint64_t[2];

  // Zeroes, or as another ToldPlace left them. They outlive it.
  explicit ToldPlace(Words& words) : words(words) {}
  KJ_DISALLOW_COPY(ToldPlace);

  // A driver begins, and knows of nothing beyond `place`.
  void begin(uint64_t place) {
    store(words[0], encode(0, place));
    store(words[1], NONE);
  }

  // Before the used index changes from `published` to `pushed`: then the driver knows of all up to
  // `place`.
  void note(uint16_t published, uint16_t pushed, uint64_t place) {
    if (pushed == published) return;
    store(words[indexOf(words[0]) == published ? 1 : 0], encode(pushed, place));
  }

  // What the driver knows that has this used index; none when nobody noted that.
  kj::Maybe<uint64_t> at(uint16_t index) const {
    for (uint64_t word : words) {
      if (word != NONE && indexOf(word) == index) return word >> INDEX_BITS;
    }
    return nullptr;
  }

  // The two places that are noted, in no order.
  kj::Maybe<uint64_t> noted(size_t which) const {
    if (words[which] == NONE) return nullptr;
    return words[which] >> INDEX_BITS;
  }

  // `count` bytes came in between that are of no chain.
  void shift(uint64_t count) {
    for (uint64_t& word : words) {
      if (word != NONE) store(word, word + (count << INDEX_BITS));
    }
  }

 private:
  static constexpr uint32_t INDEX_BITS = 16;
  static constexpr uint64_t NONE = UINT64_MAX;
  static uint64_t encode(uint16_t index, uint64_t place) { return place << INDEX_BITS | index; }
  static uint16_t indexOf(uint64_t word) { return uint16_t(word); }
  // One store each, in this order: a process may die between any two.
  static void store(uint64_t& word, uint64_t value) {
    __atomic_store_n(&word, value, __ATOMIC_RELEASE);
  }

  Words& words;
};

// More than a stream ever has: what counts more was not left by a process that was well.
constexpr uint64_t LONGEST_STREAM = 1ull << 47;

}  // namespace troupe::console
