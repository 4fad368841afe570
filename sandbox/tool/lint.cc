#include "sandbox/tool/lint.h"

#include <algorithm>
#include <set>

#include "sandbox/tool/call_text.h"
#include "sandbox/tool/coverage.h"

namespace troupe::sandbox {
namespace {

// Whether `other` alone allows all that `rule` does.
bool makesIdle(const PolicyRule& other, const PolicyRule& rule) {
  if (&other == &rule || other.syscall != rule.syscall) return false;
  // An allowing rule goes before one that fails; the reverse makes nothing idle.
  if (other.error != 0 && other.error != rule.error) return false;
  auto by = other.verdicts();
  auto verdicts = rule.verdicts();
  return std::all_of(verdicts.begin(), verdicts.end(),
                     [&](const Verdict& verdict) { return covered(verdict, by); });
}

struct IdleRule {
  const PolicyRule* rule;
  const PolicyRule* by;
};

std::vector<IdleRule> findIdleRules(const Policy& policy) {
  std::vector<IdleRule> found;
  for (const std::string& stage : stagesOf(policy)) {
    const PolicyFilter& filter = *filterOf(policy, stage);
    for (const PolicyRule& rule : filter.rules) {
      if (rule.stage != stage || rule.where.file != policy.path) continue;
      for (const PolicyRule& other : filter.rules) {
        // Of two alike in one stage, the later one.
        bool later = other.stage == stage && other.where.file == rule.where.file &&
                     other.where.line > rule.where.line;
        if (!makesIdle(other, rule) || (later && makesIdle(rule, other))) continue;
        found.push_back({&rule, &other});
        break;
      }
    }
  }
  return found;
}

void addIdleRules(const Policy& policy, std::vector<ProfileError>& warnings) {
  for (const IdleRule& idle : findIdleRules(policy)) {
    warnings.push_back({idle.rule->name, idle.rule->syscallName + " is allowed by " +
                                             placeText(idle.by->where) + " already (" +
                                             conditionsText(*idle.by) + "); drop it here"});
  }
}

void addUnusedFds(const Policy& policy, std::vector<ProfileError>& warnings) {
  std::set<std::string> used;
  for (const PolicyFilter& filter : policy.filters) {
    for (const PolicyRule& rule : filter.rules) {
      for (const PolicyArgument& argument : rule.arguments)
        used.insert(argument.fds.begin(), argument.fds.end());
    }
  }
  for (const PolicyFd& fd : policy.fds) {
    if (fd.where.file != policy.path || used.count(fd.name) != 0) continue;
    warnings.push_back(
        {fd.where, "no rule names fd \"" + fd.name +
                       "\"; unless it is only waited for, name it in the rules that use it, or "
                       "drop it"});
  }
}

void addMissingBudgets(const Policy& policy, std::vector<ProfileError>& warnings) {
  for (const std::string& stage : stagesOf(policy)) {
    if (stage == "start" || stage == "ready") continue;
    bool has = std::any_of(policy.budgets.begin(), policy.budgets.end(),
                           [&](const PolicyBudget& budget) { return budget.filter == stage; });
    if (has) continue;
    Reach reach = reachOf(*filterOf(policy, stage));
    warnings.push_back({{policy.path, 1, 1},
                        stage + " has no budget; today's is budget { filter: \"" + stage +
                            "\" syscalls: " + std::to_string(reach.total()) + " unconditional: " +
                            std::to_string(reach.unconditional.size()) + " }"});
  }
}

}  // namespace

std::vector<ProfileError> lint(const Policy& policy) {
  std::vector<ProfileError> warnings;
  addIdleRules(policy, warnings);
  addUnusedFds(policy, warnings);
  addMissingBudgets(policy, warnings);
  std::stable_sort(
      warnings.begin(), warnings.end(),
      [](const ProfileError& a, const ProfileError& b) { return a.where.line < b.where.line; });
  return warnings;
}

std::vector<const PolicyRule*> idleRules(const Policy& policy) {
  std::vector<const PolicyRule*> rules;
  for (const IdleRule& idle : findIdleRules(policy))
    rules.push_back(idle.rule);
  return rules;
}

}  // namespace troupe::sandbox
