#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

namespace troupe::blk::qcow2 {

// What the entries of an image's L2 tables have become and its file does not say yet, in memory
// that outlives the process: whoever takes its place goes on with it (Image::takeOver()).
//
// A process may die between any two stores, so each change is one store of a word:
//   beginning to write    `isOpen` = 1, before anything in the file changes
//   an entry changes      its record, then `count`
//   all is in the file    `count` = 0
//   the image is closed   `isOpen` = 0
// Of two records of one cluster the later one holds.
//
// Whoever wrote it before may have been hostile: recover() reads each word once, and what it
// returns is no more than a wish. Not thread-safe.
class MappingJournal {
 public:
  struct Record {
    uint64_t cluster;  // of the guest's disk
    uint64_t entry;    // as it would stand in the table, but for COPIED
  };

  // What is changed at most without a look at hasRoom().
  static constexpr uint64_t ROOM = 8192;

  // `memory`: aligned to 8, with room for ROOM records at least, and either zero or written by
  // another MappingJournal of the same length.
  explicit MappingJournal(kj::ArrayPtr<kj::byte> memory);
  KJ_DISALLOW_COPY(MappingJournal);

  // What the process before left: none if it had closed the image, or never changed it. The last
  // record of each cluster, by cluster. Throws TRP-blk-029 if it makes no sense.
  kj::Maybe<kj::Array<Record>> recover() const;

  void open() { store(IS_OPEN, 1); }
  bool hasRoom() const { return capacity - count >= ROOM; }
  void add(Record record);
  // All of it is on the disk.
  void clear();
  void close();

 private:
  static constexpr uint64_t COUNT = 0;
  static constexpr uint64_t IS_OPEN = 8;
  static constexpr uint64_t HEADER = 64;  // its own cache line
  static constexpr uint64_t RECORD = 16;
  static constexpr uint64_t ENTRY = 8;

  // Neither split nor moved across another by the compiler; the processor keeps stores in order,
  // and a death is none of its business.
  void store(uint64_t at, uint64_t value) {
    __atomic_store_n(reinterpret_cast<uint64_t*>(memory + at), value, __ATOMIC_RELEASE);
  }
  uint64_t load(uint64_t at) const {
    return __atomic_load_n(reinterpret_cast<const uint64_t*>(memory + at), __ATOMIC_RELAXED);
  }

  kj::byte* const memory;
  const uint64_t capacity;  // in records
  uint64_t count = 0;
};

}  // namespace troupe::blk::qcow2
