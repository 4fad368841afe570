#include "guest/payload/samples.h"

namespace payload {

void heapSort(uint32_t* values, unsigned count) {
  auto sink = [&](unsigned root, unsigned end) {
    for (unsigned child; (child = 2 * root + 1) < end; root = child) {
      child += child + 1 < end && values[child] < values[child + 1];
      if (values[root] >= values[child]) {
        return;
      }
      uint32_t value = values[root];
      values[root] = values[child];
      values[child] = value;
    }
  };
  for (unsigned i = count / 2; i-- > 0;) {
    sink(i, count);
  }
  for (unsigned end = count; end > 1; --end) {
    uint32_t largest = values[0];
    values[0] = values[end - 1];
    values[end - 1] = largest;
    sink(0, end - 1);
  }
}

uint64_t nanoseconds(uint64_t cycles, TscRate rate) {
  return rate.hz ? cycles * 1000 / (rate.hz / 1000'000) : 0;
}

uint64_t perSecond(uint64_t count, uint64_t cycles, TscRate rate) {
  uint64_t millions = rate.hz / 1000;  // thousandths, so that small counts keep their digits
  return cycles ? count * millions / (cycles / 1000 ? cycles / 1000 : 1) : 0;
}

}  // namespace payload
