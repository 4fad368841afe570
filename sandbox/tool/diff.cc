#include "sandbox/tool/diff.h"

#include <algorithm>
#include <map>

#include "sandbox/tool/call_text.h"
#include "sandbox/tool/coverage.h"
#include "sandbox/tool/layer_rows.h"
#include "sandbox/tool/text_table.h"

namespace troupe::sandbox {
namespace {

// Far above any fd; from here on each name has a number of its own, the same in both policies.
constexpr uint64_t FIRST_NAMED_FD = uint64_t{1} << 40;

class Difference {
 public:
  Difference(const Policy& before, const Policy& after) : before(before), after(after) {}

  std::string text() {
    std::string text = section("layers", layerTable()) + section("fds", fdTable()) +
                       section("limits", limitTable());
    std::vector<std::string> stages = stagesOf(before);
    for (const std::string& stage : stagesOf(after)) {
      if (std::count(stages.begin(), stages.end(), stage) == 0) stages.push_back(stage);
    }
    for (const std::string& stage : stages)
      text += section(stage, ruleTable(stage));
    return text;
  }

 private:
  static std::string section(const std::string& name, const std::string& table) {
    return table.empty() ? "" : name + "\n" + table;
  }

  static std::string describeFd(const PolicyFd& fd) {
    std::string text = fd.kind + " " + std::to_string(fd.number);
    if (fd.count > 1) text += "-" + std::to_string(fd.number + fd.count - 1);
    text += fd.handed ? ", handed" : fd.made ? ", made" : ", placed";
    if (fd.optional) text += ", optional";
    if (fd.closed) text += ", closed once ready";
    return text;
  }

  static std::map<std::string, std::string> layersOf(const Policy& policy) {
    std::map<std::string, std::string> layers;
    for (const LayerRow& row : layerRows(policy.layers))
      layers[row.layer + (row.value == "-" ? "" : " " + row.value)] = row.need;
    return layers;
  }

  std::string layerTable() const { return mapTable(layersOf(before), layersOf(after)); }

  std::string fdTable() const {
    std::map<std::string, std::string> old, now;
    for (const PolicyFd& fd : before.fds)
      old[fd.name] = describeFd(fd);
    for (const PolicyFd& fd : after.fds)
      now[fd.name] = describeFd(fd);
    return mapTable(old, now);
  }

  std::string limitTable() const {
    std::map<std::string, std::string> old, now;
    for (const PolicyLimit& limit : before.limits)
      old[limit.name] = std::to_string(limit.value);
    for (const PolicyLimit& limit : after.limits)
      now[limit.name] = std::to_string(limit.value);
    return mapTable(old, now);
  }

  static std::string mapTable(const std::map<std::string, std::string>& old,
                              const std::map<std::string, std::string>& now) {
    TextTable table({"", "NAME", "WHAT"}, {0, 0, 0});
    auto lines = [&](const char* sign, const auto& of, const auto& other) {
      for (const auto& [name, what] : of) {
        auto same = other.find(name);
        if (same == other.end() || same->second != what) table.add({sign, name, what});
      }
    };
    lines("-", old, now);
    lines("+", now, old);
    return table.render();
  }

  std::string ruleTable(const std::string& stage) {
    TextTable table({"", "CALL", "CONDITIONS", "REASON", "SOURCE"}, {0, 0, 52, 40, 0});
    addMissing("-", filterOf(before, stage), filterOf(after, stage), table);
    addMissing("+", filterOf(after, stage), filterOf(before, stage), table);
    return table.render();
  }

  // The rules of `of` that allow a call that `other` does not.
  void addMissing(const char* sign, const PolicyFilter* of, const PolicyFilter* other,
                  TextTable& table) {
    if (of == nullptr) return;
    std::vector<Verdict> allowed, failing;
    if (other != nullptr) {
      for (const PolicyRule& rule : other->rules) {
        for (const Verdict& verdict : named(rule).verdicts())
          (rule.error == 0 ? allowed : failing).push_back(verdict);
      }
    }
    std::vector<const PolicyRule*> missing;
    for (const PolicyRule& rule : of->rules) {
      if (rule.where.line == 0) continue;  // the jail's own steps, which every profile has
      auto verdicts = named(rule).verdicts();
      const auto& by = rule.error == 0 ? allowed : failing;
      bool same = std::all_of(verdicts.begin(), verdicts.end(),
                              [&](const Verdict& verdict) { return covered(verdict, by); });
      if (!same) missing.push_back(&rule);
    }
    std::stable_sort(missing.begin(), missing.end(), [](const PolicyRule* a, const PolicyRule* b) {
      return a->syscallName < b->syscallName;
    });
    for (const PolicyRule* rule : missing) {
      table.add({sign, callText(*rule), conditionsText(*rule), reasonText(*rule),
                 placeText(rule->where)});
    }
  }

  PolicyRule named(PolicyRule rule) {
    for (PolicyArgument& argument : rule.arguments) {
      if (argument.fds.empty()) continue;
      argument.alternatives.clear();
      for (const std::string& fd : argument.fds) {
        uint64_t number = numbers.emplace(fd, FIRST_NAMED_FD + numbers.size()).first->second;
        argument.alternatives.push_back(
            {argument.index, Condition::MASKED_EQUAL, ~uint64_t{0}, number});
      }
    }
    return rule;
  }

  const Policy& before;
  const Policy& after;
  std::map<std::string, uint64_t> numbers;
};

}  // namespace

std::string diffPolicies(const Policy& before, const Policy& after) {
  return Difference(before, after).text();
}

}  // namespace troupe::sandbox
