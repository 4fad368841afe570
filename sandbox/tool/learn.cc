#include "sandbox/tool/learn.h"

#include <linux/futex.h>
#include <linux/seccomp.h>
#include <seccomp.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>

#include "sandbox/filter_program.h"
#include "sandbox/policy.h"
#include "sandbox/rule_compiler.h"
#include "sandbox/syscall_names.h"
#include "sandbox/tool/learned_rule.h"
#include "sandbox/tool/lint.h"
#include "sandbox/tool/profile_text.h"

namespace troupe::sandbox {
namespace {

// The files as they are, but one of them as it is about to be.
class ChangedFiles final: public ProfileFiles {
 public:
  ChangedFiles(const ProfileFiles& files, const std::string& path, const std::string& text)
      : files(files), path(path), text(text) {}
  std::optional<std::string> read(const std::string& name) const override {
    return name == path ? std::make_optional(text) : files.read(name);
  }

 private:
  const ProfileFiles& files;
  const std::string& path;
  const std::string& text;
};

bool isAllowed(const Policy& policy, const CallRecord& record) {
  // The jail's own steps, which every profile gets where it needs them.
  if (record.syscall == SCMP_SYS(seccomp) && record.arguments[0] == 1) return true;
  const PolicyFilter* filter = filterOf(policy, record.stage);
  return filter != nullptr &&
         decide(*filter, record.syscall, record.arguments) != SECCOMP_RET_KILL_PROCESS;
}

class Learning {
 public:
  Learning(const ProfileFiles& files, const std::string& path, const CallSiteOf& siteOf)
      : files(files), path(path), siteOf(siteOf), text(read()) {
    // The budget is what the rules come to in the end.
    text.eraseAll("budget");
  }

  Learned from(const std::vector<CallRecord>& records) {
    std::map<std::string, std::string> lines;
    for (const LearnedRule& rule : rulesFor(policy(), records)) {
      lines[rule.place] += rule.text();
      learned.rules++;
    }
    auto idleBefore = idle(policy()).size();
    for (const char* place : {"start", "ready", "run"}) {
      if (lines.count(place) != 0) text.add(place, lines[place]);
      lines.erase(place);
    }
    for (const auto& [place, rules] : lines)
      text.add(place, rules);
    if (idleBefore == 0) eraseIdle();
    addBudgets();
    for (const PolicyFilter& filter : policy().filters)
      buildProgram(filter);
    learned.text = text.text();
    return std::move(learned);
  }

 private:
  std::string read() const {
    auto content = files.read(path);
    if (!content) throw ProfileError({path, 1, 1}, "there is no such profile");
    return *content;
  }

  Policy policy() const {
    std::string now = text.text();
    return readPolicy(ChangedFiles(files, path, now), path);
  }

  std::vector<LearnedRule> rulesFor(const Policy& policy, const std::vector<CallRecord>& records) {
    std::vector<LearnedRule> rules;
    std::map<std::string, uint64_t> impossible;
    for (const CallRecord& record : records) {
      if (isAllowed(policy, record)) continue;
      const char* name = syscallName(record.syscall);
      if (name == nullptr || (record.stage != "start" && neverWhileServing(name))) {
        auto call = name == nullptr ? "system call " + std::to_string(record.syscall) : name;
        impossible[record.stage + " called " + call] += record.count;
        continue;
      }
      rules.push_back(ruleFor(policy, record, name, siteOf(record)));
    }
    for (const auto& [what, count] : impossible) {
      learned.refused.push_back(what + " (" + std::to_string(count) +
                                "), which no profile may allow then");
    }
    addChances(policy, rules);
    return joined(std::move(rules));
  }

  // Whether a lock is contended, when the heap grows, and when an fd is watched no more is chance:
  // what was seen of these in one stage or thread, all may need.
  static void addChances(const Policy& policy, std::vector<LearnedRule>& rules) {
    std::vector<std::string> places{"run"};
    for (const PolicyFilter& filter : policy.filters) {
      if (filter.stage.compare(0, 7, "thread:") == 0) places.push_back(filter.stage);
    }
    bool hasThreads = places.size() > 1;
    std::set<uint64_t> waits;
    bool heapGrows = false;
    std::set<std::vector<std::string>> watchers;
    for (const LearnedRule& rule : rules) {
      if (rule.syscall == "epoll_ctl") watchers.insert(rule.fds[0]);
      if (rule.syscall == "futex") waits.insert(rule.values[1].begin(), rule.values[1].end());
      heapGrows = heapGrows || rule.syscall == "brk";
    }
    for (const std::vector<std::string>& fds : watchers) {
      LearnedRule rule = chanceOf("run", "epoll_ctl");
      rule.fds[0] = fds;
      rules.push_back(std::move(rule));
    }
    if (!waits.empty()) waits.insert({FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE});
    for (const std::string& place : places) {
      if (heapGrows && !allows(policy, place, SCMP_SYS(brk), 0))
        rules.push_back(chanceOf(place, "brk"));
      if (!hasThreads) continue;
      LearnedRule rule = chanceOf(place, "futex");
      for (uint64_t wait : waits) {
        if (!allows(policy, place, SCMP_SYS(futex), wait)) rule.values[1].insert(wait);
      }
      if (!rule.values[1].empty()) rules.push_back(std::move(rule));
    }
  }

  static bool allows(const Policy& policy, const std::string& stage, int syscall, uint64_t second) {
    CallRecord record;
    record.stage = stage;
    record.syscall = syscall;
    record.arguments[1] = second;
    return isAllowed(policy, record);
  }

  static LearnedRule chanceOf(const std::string& place, const std::string& syscall) {
    LearnedRule rule;
    rule.place = place;
    rule.syscall = syscall;
    rule.byChance = true;
    return rule;
  }

  // Rules of the file itself, each alone in its block, that others make idle.
  std::vector<SourceLocation> idle(const Policy& policy) const {
    std::vector<SourceLocation> places;
    for (const PolicyRule* rule : idleRules(policy)) {
      bool alone = true;
      for (const PolicyFilter& filter : policy.filters) {
        for (const PolicyRule& other : filter.rules) {
          bool sameBlock = other.where.file == rule->where.file &&
                           other.where.line == rule->where.line &&
                           other.where.column == rule->where.column;
          alone = alone && (!sameBlock || other.syscall == rule->syscall);
        }
      }
      if (alone) places.push_back(rule->where);
    }
    return places;
  }

  // From the last to the first: what stands before an erased one does not move.
  void eraseIdle() {
    auto places = idle(policy());
    std::sort(places.begin(), places.end(), [](const SourceLocation& a, const SourceLocation& b) {
      return a.line != b.line ? a.line > b.line : a.column > b.column;
    });
    for (const SourceLocation& where : places)
      text.erase(where);
  }

  void addBudgets() {
    std::string lines;
    Policy result = policy();
    for (const std::string& stage : stagesOf(result)) {
      if (stage == "start" || stage == "ready") continue;
      Reach reach = reachOf(*filterOf(result, stage));
      lines += "budget { filter: \"" + stage + "\" syscalls: " + std::to_string(reach.total()) +
               " unconditional: " + std::to_string(reach.unconditional.size()) + " }\n";
    }
    bool apart = text.text().size() < 2 || text.text().substr(text.text().size() - 2) == "\n\n";
    text.append((apart ? "" : "\n") + lines);
  }

  const ProfileFiles& files;
  const std::string& path;
  const CallSiteOf& siteOf;
  ProfileText text;
  Learned learned;
};

}  // namespace

Learned learn(const ProfileFiles& files, const std::string& path,
              const std::vector<CallRecord>& records, const CallSiteOf& siteOf) {
  return Learning(files, path, siteOf).from(records);
}

}  // namespace troupe::sandbox
