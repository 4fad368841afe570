#include "sandbox/verdict_sets.h"

#include <algorithm>
#include <set>
#include <tuple>

namespace troupe::sandbox {
namespace {

// Beyond this a filter exceeds what the kernel takes (4096 instructions), and compiling it would
// take minutes.
constexpr size_t MAX_VERDICTS_PER_FILTER = 4096;

auto key(const Condition& c) {
  return std::tie(c.argument, c.test, c.mask, c.value);
}

bool before(const Verdict& a, const Verdict& b) {
  if (a.syscall != b.syscall) return a.syscall < b.syscall;
  if (a.error != b.error) return a.error < b.error;
  return std::lexicographical_compare(
      a.conditions.begin(), a.conditions.end(), b.conditions.begin(), b.conditions.end(),
      [](const Condition& x, const Condition& y) { return key(x) < key(y); });
}

// Whether every argument that meets `narrow` meets `wide`.
bool implies(const Condition& narrow, const Condition& wide) {
  if (narrow.argument != wide.argument) return false;
  if (wide.test == Condition::MASKED_EQUAL) {
    return narrow.test == Condition::MASKED_EQUAL && (wide.mask & ~narrow.mask) == 0 &&
           (narrow.value & wide.mask) == wide.value;
  }
  uint64_t most = narrow.test == Condition::AT_MOST ? narrow.value : narrow.value | ~narrow.mask;
  return most <= wide.value;
}

bool implies(const Verdict& narrow, const Verdict& wide) {
  if (narrow.syscall != wide.syscall || wide.error != 0) return false;
  return std::all_of(wide.conditions.begin(), wide.conditions.end(), [&](const Condition& outer) {
    return std::any_of(narrow.conditions.begin(), narrow.conditions.end(),
                       [&](const Condition& inner) { return implies(inner, outer); });
  });
}

}  // namespace

std::vector<Verdict> verdictsOf(const std::vector<PolicyRule>& rules) {
  std::vector<Verdict> verdicts;
  for (const PolicyRule& rule : rules) {
    for (Verdict& verdict : rule.verdicts())
      verdicts.push_back(std::move(verdict));
    if (verdicts.size() > MAX_VERDICTS_PER_FILTER) {
      throw ProfileError(rule.where,
                         "the rules up to this one have more than 4096 combinations, "
                         "more than a filter can hold");
    }
  }
  for (Verdict& verdict : verdicts) {
    std::sort(verdict.conditions.begin(), verdict.conditions.end(),
              [](const Condition& a, const Condition& b) { return key(a) < key(b); });
  }
  std::sort(verdicts.begin(), verdicts.end(), before);
  std::vector<Verdict> kept;
  std::set<int> unconditional;
  for (Verdict& verdict : verdicts) {
    bool repeats = !kept.empty() && !before(kept.back(), verdict);
    if (repeats || unconditional.count(verdict.syscall) != 0) continue;
    if (verdict.conditions.empty()) unconditional.insert(verdict.syscall);
    kept.push_back(std::move(verdict));
  }
  return kept;
}

bool same(const std::vector<Verdict>& a, const std::vector<Verdict>& b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](const Verdict& x, const Verdict& y) {
           return !before(x, y) && !before(y, x);
         });
}

void requireNested(const PolicyFilter& earlier, const PolicyFilter& later) {
  for (const PolicyRule& rule : later.rules) {
    if (rule.error != 0) continue;
    for (const Verdict& verdict : rule.verdicts()) {
      bool held = std::any_of(earlier.verdicts.begin(), earlier.verdicts.end(),
                              [&](const Verdict& other) { return implies(verdict, other); });
      if (held) continue;
      throw ProfileError(rule.where, later.stage + " allows " + rule.syscallName + " where " +
                                         earlier.stage +
                                         " does not, and stages only narrow; write the rule in " +
                                         earlier.stage + " too, or narrow it here");
    }
  }
}

}  // namespace troupe::sandbox
