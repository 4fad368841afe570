#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "devices/blk/testing/blk_bench.h"

namespace troupe::blk::testing {

// A driver that knows what each block of its disk holds. It sends requests of every kind at random,
// one at a time for a block, and checks each answer: that it is one, that it is right, and what was
// read. Its disk may change hands meanwhile.
class CheckingDriver: public BlkDriver {
 public:
  static constexpr uint32_t BLOCK = 4096;
  static constexpr uint32_t DEPTH = 32;

  // `contents`: of the disk, whole blocks. `queues`: 1 or 2.
  CheckingDriver(uint32_t seed, kj::Array<kj::byte> contents, uint16_t queues);

  // Keeps DEPTH requests on their way.
  void fill();
  // Takes what has been answered; how many. Each thing that is wrong is a failure of the test.
  uint64_t check();
  bool isIdle() const { return underWay.empty(); }
  uint64_t totalAnswered() const { return answered; }

  // The disk holds what it has to, down to the byte.
  void expectHeldBy(kj::ArrayPtr<const kj::byte> disk) const;
  // Forgets what is under way and what the disk held, as after a reset.
  void beginAnew(kj::Array<kj::byte> contents);
  uint64_t blocks() const { return content.size() / BLOCK; }

 private:
  enum class Kind { READ, WRITE, FLUSH, DISCARD, ZEROES };
  struct Slot {  // of guest memory, for one request
    uint64_t header;
    uint64_t data;
    uint64_t status;
  };
  struct Request {
    Kind kind;
    uint64_t first;
    uint64_t count;  // blocks
    uint64_t tag;    // that it writes
    Slot slot;
  };

  bool choose(Request& request);
  void send(const Request& request);
  void checkOne(const Request& request);
  bool holds(kj::ArrayPtr<const kj::byte> bytes, uint64_t block) const;
  kj::ArrayPtr<kj::byte> contentOf(uint64_t block) {
    return content.slice(block * BLOCK, (block + 1) * BLOCK);
  }

  std::mt19937 random;
  kj::Array<kj::byte> content;
  std::vector<bool> mayBeZeroes;  // by block: was discarded
  std::vector<bool> busy;
  std::vector<Slot> slots;
  std::map<std::pair<uint16_t, uint32_t>, Request> underWay;  // by queue and head
  uint64_t nextTag = 1;
  uint64_t answered = 0;
};

}  // namespace troupe::blk::testing
