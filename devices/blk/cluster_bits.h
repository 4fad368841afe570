#pragma once

#include <kj/common.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace troupe::blk {

// A bit for each cluster of a disk, to be read and changed by any thread. Memory is used where bits
// were set, so those of a large disk cost little.
class ClusterBits {
 public:
  // All of them 0. Throws when there is no room for them.
  explicit ClusterBits(uint64_t count);

  bool test(uint64_t index) const { return word(index) >> (index % 64) & 1; }
  // How many from `first` on, at most `most`, have this value, as the first had when it was tested.
  uint64_t run(uint64_t first, uint64_t most, bool value) const;
  // How many of these are 1.
  uint64_t countOf(uint64_t first, uint64_t count) const;

  // What was written before set() is seen by whoever finds the bit.
  void set(uint64_t first, uint64_t count);
  void clear(uint64_t first, uint64_t count);

 private:
  using Word = std::atomic<uint64_t>;
  struct Free {
    void operator()(Word* words) const { free(words); }
  };

  uint64_t word(uint64_t index) const {
    return words.get()[index / 64].load(std::memory_order_acquire);
  }
  // Calls step(word, mask) for each word with one of these bits.
  template <typename Step>
  void forWords(uint64_t first, uint64_t count, Step&& step) const;

  std::unique_ptr<Word, Free> words;
};

}  // namespace troupe::blk
