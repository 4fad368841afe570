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
  static uint64_t bytesFor(uint64_t count) { return (count / 64 + 1) * sizeof(uint64_t); }

  // All of them 0. `kept`: bytesFor() of zeroes or more, which are changed as these bits are, and
  // are never read: a hole of a file that is read through a mapping is one no more. Throws when
  // there is no room.
  explicit ClusterBits(uint64_t count, kj::ArrayPtr<kj::byte> kept = nullptr);

  bool test(uint64_t index) const { return word(index) >> (index % 64) & 1; }
  // How many from `first` on, at most `most`, have this value, as the first had when it was tested.
  uint64_t run(uint64_t first, uint64_t most, bool value) const;
  // How many of these are 1.
  uint64_t countOf(uint64_t first, uint64_t count) const;

  // What was written before set() is seen by whoever finds the bit.
  void set(uint64_t first, uint64_t count);
  void clear(uint64_t first, uint64_t count);

  // Sets the bits of word `index` to what is kept already. Before any other thread is there.
  void adopt(uint64_t index, uint64_t bits) { words.get()[index].store(bits); }
  uint64_t wordAt(uint64_t index) const { return words.get()[index].load(); }

 private:
  using Word = std::atomic<uint64_t>;
  struct Free {
    void operator()(Word* words) const { free(words); }
  };

  uint64_t word(uint64_t index) const {
    return words.get()[index / 64].load(std::memory_order_acquire);
  }
  // Calls step(index, mask) for each word with one of these bits.
  template <typename Step>
  void forWords(uint64_t first, uint64_t count, Step&& step) const;

  std::unique_ptr<Word, Free> words;
  Word* const kept;  // null: for nobody
};

}  // namespace troupe::blk
