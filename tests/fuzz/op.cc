#include "tests/fuzz/op.h"

#include <algorithm>
#include <cstring>

namespace troupe::fuzz {

std::vector<Op> decode(kj::ArrayPtr<const kj::byte> input) {
  size_t count = std::min((input.size() + sizeof(Op) - 1) / sizeof(Op), MAX_OPS);
  std::vector<Op> ops(count);
  if (count == 0) return ops;
  memset(ops.data(), 0, count * sizeof(Op));
  memcpy(ops.data(), input.begin(), std::min(input.size(), count * sizeof(Op)));
  return ops;
}

}  // namespace troupe::fuzz
