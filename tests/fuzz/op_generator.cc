#include "tests/fuzz/op_generator.h"

#include <algorithm>

namespace troupe::fuzz {
namespace {

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

}  // namespace

uint32_t below(Random& random, uint32_t bound) {
  return random() % bound;
}

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
    default:
      change(random, ops[one]);
      break;
  }
}

}  // namespace troupe::fuzz
