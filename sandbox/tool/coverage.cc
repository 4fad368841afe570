#include "sandbox/tool/coverage.h"

#include <algorithm>

namespace troupe::sandbox {
namespace {

// A call is split in two at most so often on its way down; profiles need a handful.
constexpr int MAX_SPLITS = 14;

const Condition* conditionOn(const Verdict& verdict, uint32_t argument) {
  for (const Condition& condition : verdict.conditions) {
    if (condition.argument == argument) return &condition;
  }
  return nullptr;
}

uint64_t onesBelowTop(uint64_t value) {
  for (int shift = 1; shift < 64; shift *= 2)
    value |= value >> shift;
  return value;
}

// Whether everything that meets `inner` meets `outer`.
bool contains(const Condition& outer, const Condition& inner) {
  bool outerSize = outer.test == Condition::AT_MOST;
  if (inner.test == Condition::AT_MOST) {
    if (outerSize) return inner.value <= outer.value;
    return outer.value == 0 && (onesBelowTop(inner.value) & outer.mask) == 0;
  }
  if (outerSize) return (inner.value | ~inner.mask) <= outer.value;
  return (outer.mask & ~inner.mask) == 0 && (inner.value & outer.mask) == outer.value;
}

bool meets(const Condition& a, const Condition& b) {
  if (a.test == Condition::AT_MOST) return b.test == Condition::AT_MOST || b.value <= a.value;
  if (b.test == Condition::AT_MOST) return a.value <= b.value;
  return ((a.value ^ b.value) & a.mask & b.mask) == 0;
}

bool contains(const Verdict& outer, const Verdict& inner) {
  return std::all_of(outer.conditions.begin(), outer.conditions.end(), [&](const Condition& c) {
    const Condition* same = conditionOn(inner, c.argument);
    return same != nullptr && contains(c, *same);
  });
}

bool meets(const Verdict& a, const Verdict& b) {
  return std::all_of(a.conditions.begin(), a.conditions.end(), [&](const Condition& c) {
    const Condition* same = conditionOn(b, c.argument);
    return same == nullptr || meets(c, *same);
  });
}

// `call` with bit `bit` of an argument fixed.
Verdict withBit(const Verdict& call, uint32_t argument, uint64_t bit, bool set) {
  Verdict result = call;
  for (Condition& condition : result.conditions) {
    if (condition.argument != argument) continue;
    condition.mask |= bit;
    condition.value |= set ? bit : 0;
    return result;
  }
  result.conditions.push_back({argument, Condition::MASKED_EQUAL, bit, set ? bit : 0});
  return result;
}

bool coveredIn(const Verdict& call, const std::vector<Verdict>& by, int splits);

// Splits `call` at a bit that `part`, which holds some of it, fixes and `call` leaves open.
bool coveredInHalves(const Verdict& call, const Verdict& part, const std::vector<Verdict>& by,
                     int splits) {
  for (const Condition& condition : part.conditions) {
    if (condition.test != Condition::MASKED_EQUAL) continue;
    const Condition* same = conditionOn(call, condition.argument);
    if (same != nullptr && same->test != Condition::MASKED_EQUAL) continue;
    uint64_t open = condition.mask & ~(same == nullptr ? 0 : same->mask);
    if (open == 0) continue;
    uint64_t bit = open & -open;
    bool set = (condition.value & bit) != 0;
    // The half outside of `part` first: it is the one more likely to be missing.
    return coveredIn(withBit(call, condition.argument, bit, !set), by, splits - 1) &&
           coveredIn(withBit(call, condition.argument, bit, set), by, splits - 1);
  }
  return false;
}

bool coveredIn(const Verdict& call, const std::vector<Verdict>& by, int splits) {
  const Verdict* part = nullptr;
  for (const Verdict& verdict : by) {
    if (verdict.syscall != call.syscall || !meets(verdict, call)) continue;
    if (contains(verdict, call)) return true;
    part = &verdict;
  }
  return part != nullptr && splits > 0 && coveredInHalves(call, *part, by, splits);
}

}  // namespace

bool covered(const Verdict& call, const std::vector<Verdict>& by) {
  return coveredIn(call, by, MAX_SPLITS);
}

}  // namespace troupe::sandbox
