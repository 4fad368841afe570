// libFuzzer's mutations, on whole operations.
#include <algorithm>
#include <cstring>

#include "tests/fuzz/op.h"
#include "tests/fuzz/op_generator.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t maxSize);

namespace troupe::fuzz {
namespace {

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
    if (!ops.empty() && below(random, 10) == 0) {
      // libFuzzer's own ways, dictionary and compared values included, on one operation.
      uint8_t* bytes = reinterpret_cast<uint8_t*>(&ops[below(random, ops.size())]) + 1;
      LLVMFuzzerMutate(bytes, sizeof(Op) - 1, sizeof(Op) - 1);
    } else {
      mutate(random, ops);
    }
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
