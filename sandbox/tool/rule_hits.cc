#include "sandbox/tool/rule_hits.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <tuple>

#include "sandbox/tool/call_text.h"
#include "sandbox/tool/json_text.h"
#include "sandbox/tool/text_table.h"

namespace troupe::sandbox {
namespace {

constexpr char HEADER[] = "troupe-coverage 1\n";
constexpr char PROCESS[] = "process";

bool isThread(const std::string& stage) {
  return stage.compare(0, 7, "thread:") == 0;
}

bool allows(const PolicyRule& rule, const CallRecord& record) {
  if (rule.syscall != record.syscall || rule.error != 0) return false;
  return std::all_of(rule.arguments.begin(), rule.arguments.end(), [&](const PolicyArgument& a) {
    return std::any_of(a.alternatives.begin(), a.alternatives.end(),
                       [&](const Condition& c) { return c.holds(record.arguments); });
  });
}

}  // namespace

bool RuleHits::Key::operator<(const Key& other) const {
  return std::tie(actor, filter, file, call, conditions) <
         std::tie(other.actor, other.filter, other.file, other.call, other.conditions);
}

RuleHits::Key RuleHits::keyOf(const Policy& policy, const std::string& filter,
                              const PolicyRule& rule) {
  return {policy.actor, filter, rule.where.file, rule.syscallName, conditionsText(rule)};
}

std::vector<std::pair<RuleHits::Key, const PolicyRule*>> RuleHits::rulesOf(const Policy& policy) {
  std::vector<std::pair<Key, const PolicyRule*>> rules;
  std::set<Key> seen, ofThreads;
  auto add = [&](const std::string& filter, const PolicyRule& rule) {
    Key key = keyOf(policy, filter, rule);
    // Built in; or made to fail, which no filter can count.
    if (rule.where.line == 0 || rule.error != 0 || !seen.insert(key).second) return;
    rules.emplace_back(key, &rule);
  };
  for (const PolicyFilter& filter : policy.filters) {
    if (!isThread(filter.stage)) continue;
    for (const PolicyRule& rule : filter.rules)
      ofThreads.insert(keyOf(policy, "", rule));
  }
  for (const PolicyFilter& filter : policy.filters) {
    for (const PolicyRule& rule : filter.rules) {
      // `start` also has what the threads need.
      bool threads = filter.stage == "start" && rule.stage != "start" &&
                     ofThreads.count(keyOf(policy, "", rule)) != 0;
      if (!threads) add(isThread(filter.stage) ? filter.stage : PROCESS, rule);
    }
  }
  return rules;
}

void RuleHits::add(const Policy& policy, const std::vector<CallRecord>& records) {
  for (const CallRecord& record : records) {
    if (record.actor != policy.actor) continue;
    const PolicyFilter* filter = filterOf(policy, record.stage);
    if (filter == nullptr) continue;
    Stage stage = record.stage == "start" ? START : record.stage == "ready" ? READY : RUN;
    // Where there is one filter for both, nobody can tell them apart.
    if (stage == READY && filterOf(policy, "run") == filter) stage = RUN;
    std::set<Key> once;
    for (const PolicyRule& rule : filter->rules) {
      if (!allows(rule, record)) continue;
      Key key = keyOf(policy, isThread(record.stage) ? record.stage : PROCESS, rule);
      if (once.insert(key).second) counts[key].in[stage] += record.count;
    }
  }
}

std::string RuleHits::text() const {
  std::string text = HEADER;
  for (const auto& [key, count] : counts) {
    text +=
        key.actor + "\t" + key.filter + "\t" + key.file + "\t" + key.call + "\t" + key.conditions;
    for (uint64_t number : count.in)
      text += "\t" + std::to_string(number);
    text += "\n";
  }
  return text;
}

bool RuleHits::addText(const std::string& text) {
  std::istringstream lines(text);
  std::string line;
  if (!std::getline(lines, line) || line + "\n" != HEADER) return false;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    Key key;
    for (std::string* word : {&key.actor, &key.filter, &key.file, &key.call, &key.conditions})
      std::getline(words, *word, '\t');
    Count more;
    for (uint64_t& number : more.in)
      words >> number;
    if (!words) return false;
    Count& count = counts[key];
    for (int i = 0; i < STAGES; i++)
      count.in[i] += more.in[i];
  }
  return true;
}

RuleHits::Count RuleHits::countOf(const Key& key) const {
  auto found = counts.find(key);
  return found == counts.end() ? Count() : found->second;
}

bool RuleHits::hasRun(const Policy& policy) const {
  return std::any_of(counts.begin(), counts.end(),
                     [&](const auto& entry) { return entry.first.actor == policy.actor; });
}

std::string RuleHits::table(const std::vector<Policy>& policies) const {
  std::string text;
  for (const Policy& policy : policies) {
    if (!hasRun(policy)) {
      text += policy.actor + ": did not run\n";
      continue;
    }
    TextTable table({"START", "READY", "RUN", "FILTER", "CALL", "CONDITIONS", "SOURCE"},
                    {0, 0, 0, 0, 0, 52, 0});
    for (const auto& [key, rule] : rulesOf(policy)) {
      Count count = countOf(key);
      table.add({std::to_string(count.in[START]), std::to_string(count.in[READY]),
                 std::to_string(count.in[RUN]), isThread(key.filter) ? key.filter : rule->stage,
                 key.call, key.conditions, placeText(rule->where)});
    }
    text += policy.actor + "\n" + table.render();
  }
  return text;
}

std::string RuleHits::unused(const std::vector<Policy>& policies) const {
  TextTable table({"ACTOR", "FILTER", "CALL", "CONDITIONS", "REASON", "SOURCE"},
                  {0, 0, 0, 44, 44, 0});
  for (const Policy& policy : policies) {
    if (!hasRun(policy)) continue;
    for (const auto& [key, rule] : rulesOf(policy)) {
      if (countOf(key).total() > 0) continue;
      table.add({policy.actor, isThread(key.filter) ? key.filter : rule->stage, key.call,
                 key.conditions, reasonText(*rule), placeText(rule->where)});
    }
  }
  return table.render();
}

std::string RuleHits::json(const std::vector<Policy>& policies) const {
  std::vector<std::string> rows;
  for (const Policy& policy : policies) {
    for (const auto& [key, rule] : rulesOf(policy)) {
      Count count = countOf(key);
      rows.push_back(JsonObject()
                         .add("actor", policy.actor)
                         .add("filter", isThread(key.filter) ? key.filter : rule->stage)
                         .add("syscall", key.call)
                         .add("conditions", key.conditions)
                         .add("reason", reasonText(*rule))
                         .add("source", placeText(rule->where))
                         .addNumber("start", count.in[START])
                         .addNumber("ready", count.in[READY])
                         .addNumber("run", count.in[RUN])
                         .text());
    }
  }
  return jsonArray(rows) + "\n";
}

}  // namespace troupe::sandbox
