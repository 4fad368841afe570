// libFuzzer's mutations, on whole operations.
#include <algorithm>
#include <cstring>
#include <random>

#include "tests/fuzz/op.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t maxSize);

namespace troupe::fuzz {
namespace {

using Random = std::minstd_rand;

uint32_t below(Random& random, uint32_t bound) {
  return random() % bound;
}

constexpr uint64_t WORTH_TRYING[] = {0,
                                     1,
                                     2,
                                     3,
                                     4,
                                     7,
                                     8,
                                     15,
                                     16,
                                     17,
                                     31,
                                     32,
                                     64,
                                     255,
                                     256,
                                     511,
                                     512,
                                     513,
                                     4095,
                                     4096,
                                     4097,
                                     0x7fff,
                                     0x8000,
                                     0xffff,
                                     0x10000,
                                     0x17fff,
                                     0x18000,
                                     0x1fffff,
                                     0x7fffffff,
                                     0x80000000,
                                     0xfffffff0,
                                     0xffffffff,
                                     0x100000000,
                                     0x10000ffff,
                                     0x7fffffffffffff,
                                     0x7fffffffffffffff,
                                     0x8000000000000000,
                                     0xfffffffffffffe00,
                                     ~0ull};

uint64_t value(Random& random) {
  switch (below(random, 3)) {
    case 0:
      return WORTH_TRYING[below(random, sizeof(WORTH_TRYING) / sizeof(WORTH_TRYING[0]))];
    case 1:
      return below(random, 64);
    default:
      return (uint64_t(random()) << 32 ^ random()) >> below(random, 64);
  }
}

Op ofKind(Random& random, OpKind kind) {
  Op op;
  op.kind = uint8_t(kind);
  op.a = below(random, 4) == 0 ? random() : below(random, 16);
  op.b = below(random, 4) == 0 ? value(random) : below(random, 16);
  op.c = below(random, 2) == 0 ? value(random) : below(random, 8);
  op.d = value(random);
  return op;
}

Op anyOp(Random& random) {
  return ofKind(random, OpKind(below(random, OP_KINDS)));
}

// Whole requests, as a driver makes them.
std::vector<Op> phrase(Random& random) {
  uint8_t queue = below(random, 4) == 0 ? below(random, 4) : 0;
  std::vector<Op> ops;
  auto add = [&](OpKind kind, uint8_t a) {
    ops.push_back(ofKind(random, kind));
    ops.back().a = a;
  };
  if (below(random, 2) == 0) {
    ops.push_back(ofKind(random, OpKind::REQUEST));
  } else {
    for (uint32_t i = below(random, 4) + 1; i > 0; i--)
      ops.push_back(ofKind(random, OpKind::BUFFER));
  }
  add(OpKind::PUBLISH, queue | (below(random, 2) << 4));
  if (below(random, 4) == 0) {  // one thing about the chain is wrong
    ops.back().a |= 0x80;
    ops.back().b = 1 << below(random, 8);
  }
  if (below(random, 4) == 0) ops.push_back(ofKind(random, OpKind::INTERLEAVE));
  if (below(random, 4) == 0) ops.push_back(ofKind(random, OpKind::EVENT));
  if (below(random, 4) != 0) add(OpKind::KICK, queue);
  return ops;
}

void change(Random& random, Op& op) {
  switch (below(random, 8)) {
    case 0:
      op.kind = below(random, OP_KINDS);
      break;
    case 1:
      op.a = value(random);
      break;
    case 2:
      op.a ^= 1 << below(random, 8);
      break;
    case 3:
      op.b = value(random);
      break;
    case 4:
      op.c = value(random);
      break;
    case 5:
      op.d = value(random);
      break;
    case 6:
      op.d += int64_t(below(random, 33)) - 16;
      break;
    default:
      op.c += int32_t(below(random, 33)) - 16;
      break;
  }
}

void mutate(Random& random, std::vector<Op>& ops) {
  auto at = [&] { return ops.begin() + below(random, ops.size() + 1); };
  if (ops.empty() || below(random, 4) == 0) {
    auto more = phrase(random);
    ops.insert(at(), more.begin(), more.end());
    return;
  }
  size_t one = below(random, ops.size());
  size_t count = std::min<size_t>(ops.size() - one, 1 + below(random, 4));
  switch (below(random, 8)) {
    case 0:
      ops.insert(at(), anyOp(random));
      break;
    case 1:
      ops.erase(ops.begin() + one, ops.begin() + one + count);
      break;
    case 2: {
      std::vector<Op> copy(ops.begin() + one, ops.begin() + one + count);
      ops.insert(at(), copy.begin(), copy.end());
      break;
    }
    case 3:
      std::swap(ops[one], ops[below(random, ops.size())]);
      break;
    case 4: {
      // libFuzzer's own ways, dictionary and compared values included, on one operation.
      uint8_t* bytes = reinterpret_cast<uint8_t*>(&ops[one]) + 1;
      LLVMFuzzerMutate(bytes, sizeof(Op) - 1, sizeof(Op) - 1);
      break;
    }
    default:
      change(random, ops[one]);
      break;
  }
}

size_t encode(std::vector<Op>& ops, uint8_t* data, size_t maxSize) {
  size_t count = std::min({ops.size(), maxSize / sizeof(Op), MAX_OPS});
  memcpy(data, ops.data(), count * sizeof(Op));
  return count * sizeof(Op);
}

}  // namespace
}  // namespace troupe::fuzz

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t maxSize,
                                          unsigned int seed) {
  using namespace troupe::fuzz;
  Random random(seed);
  auto ops = decode(kj::arrayPtr(data, size));
  do {
    mutate(random, ops);
  } while (below(random, 2) == 0);
  return encode(ops, data, maxSize);
}

// The beginning of one and the end of the other.
extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* data1, size_t size1,
                                            const uint8_t* data2, size_t size2, uint8_t* out,
                                            size_t maxSize, unsigned int seed) {
  using namespace troupe::fuzz;
  Random random(seed);
  auto ops = decode(kj::arrayPtr(data1, size1));
  auto other = decode(kj::arrayPtr(data2, size2));
  ops.resize(below(random, ops.size() + 1));
  ops.insert(ops.end(), other.begin() + below(random, other.size() + 1), other.end());
  return encode(ops, out, maxSize);
}
