#include "sandbox/policy.h"

#include <seccomp.h>
#include <sys/resource.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "sandbox/constants.h"
#include "sandbox/layer_guard.h"
#include "sandbox/profile.h"
#include "sandbox/profile_source.h"
#include "sandbox/rule_compiler.h"

namespace troupe::sandbox {
namespace {

using Locations = google::protobuf::TextFormat::ParseInfoTree;

constexpr uint64_t ALL_BITS = ~uint64_t{0};

// Beyond this a filter exceeds what the kernel takes (4096 instructions), and compiling it would
// take minutes.
constexpr size_t MAX_VERDICTS_PER_FILTER = 4096;

// Above any table of fds; and the program's own fd comes right after the limit.
constexpr uint64_t MAX_FILES = 65536;

constexpr const char* STAGES[] = {"start", "ready", "run"};

// A rule and the file it stands in, which decides whether a narrow reaches it.
struct Written {
  const SourceFile* file;
  PolicyRule rule;
};

struct WrittenNarrow {
  std::set<const SourceFile*> reaches;
  PolicyRule narrow;
};

// What the files say about one stage.
struct WrittenStage {
  std::vector<Written> rules;
  std::vector<WrittenNarrow> narrows;
};

bool sameConditions(const PolicyRule& a, const PolicyRule& b) {
  auto key = [](const PolicyRule& rule) {
    std::multiset<std::tuple<uint32_t, int, uint64_t, uint64_t>> all;
    for (const PolicyArgument& argument : rule.arguments) {
      for (const Condition& c : argument.alternatives)
        all.emplace(c.argument, c.test, c.mask, c.value);
    }
    return all;
  };
  return a.syscall == b.syscall && a.error == b.error && key(a) == key(b);
}

void addBeneath(const SourceFile& file, std::set<const SourceFile*>& all) {
  for (const SourceFile* include : file.includes) {
    if (all.insert(include).second) addBeneath(*include, all);
  }
}

class Resolver {
 public:
  Resolver(const ProfileFiles& files, const std::string& path) : files(files), path(path) {}

  PolicyReading resolve() {
    reading.policy.path = path;
    attempt([&] { sources = readSources(files, path); });
    if (sources.empty()) return std::move(reading);
    const SourceFile& main = *sources.back();
    policy.actor = main.profile.actor();
    if (policy.actor.empty()) {
      attempt([&] {
        throw ProfileError({path, 1, 1},
                           "has no `actor`; a shared rule set has none and is checked with a "
                           "profile that includes it");
      });
      return std::move(reading);
    }
    attempt([&] { checkName(main, &main.locations, main.profile, "actor", policy.actor); });
    for (const auto& source : sources) {
      attempt([&] { checkShared(*source); });
      addFds(*source);
      addLimits(*source);
    }
    policy.layers = readLayers(sources, policy.fds,
                               [&](const ProfileError& error) { reading.errors.push_back(error); });
    addFilters();
    guardLayers(policy, [&](const ProfileError& error) { reading.errors.push_back(error); });
    if (reading.errors.empty()) addBudgets();
    dropRepeatedErrors();
    return std::move(reading);
  }

 private:
  using Verdicts = std::vector<Verdict>;

  template <typename Step>
  void attempt(Step&& step) {
    try {
      step();
    } catch (const ProfileError& error) {
      reading.errors.push_back(error);
    }
  }

  // A file that several threads include is looked at once for each.
  void dropRepeatedErrors() {
    std::set<std::string> seen;
    std::vector<ProfileError> kept;
    for (const ProfileError& error : reading.errors) {
      if (seen.insert(error.what()).second) kept.push_back(error);
    }
    reading.errors = std::move(kept);
  }

  static void checkName(const SourceFile& file, const Locations* tree,
                        const google::protobuf::Message& message, const std::string& field,
                        const std::string& name) {
    bool sound = !name.empty() && name.size() <= 32 &&
                 std::all_of(name.begin(), name.end(), [](unsigned char c) {
                   return std::islower(c) || std::isdigit(c) || c == '_' || c == '-';
                 });
    if (!sound) {
      throw ProfileError(locate(file, tree, message, field),
                         "`" + field + "` is \"" + name +
                             "\"; it has 1 to 32 lower-case letters, digits, '_' or '-'");
    }
  }

  void checkShared(const SourceFile& source) {
    if (&source == sources.back().get()) return;
    if (!source.profile.actor().empty()) {
      throw ProfileError(locate(source, &source.locations, source.profile, "actor"),
                         "only a shared rule set can be included; this is the profile of \"" +
                             source.profile.actor() + "\"");
    }
    if (source.profile.budget_size() > 0) {
      throw ProfileError(locate(source, &source.locations, source.profile, "budget"),
                         "a budget stands in the profile of an actor, not in a shared rule set");
    }
  }

  void addFds(const SourceFile& file) {
    for (int i = 0; i < file.profile.fd_size(); i++)
      attempt([&] { addFd(file, i); });
  }

  void addFd(const SourceFile& file, int index) {
    const policy::Fd& fd = file.profile.fd(index);
    const Locations* tree = inside(&file.locations, file.profile, "fd", index);
    checkName(file, tree, fd, "name", fd.name());
    uint32_t count = fd.has_count() ? fd.count() : 1;
    if (count == 0 || count > 4096) {
      throw ProfileError(locate(file, tree, fd, "count"), "`count` is 1 to 4096");
    }
    if (fd.number() >= MAX_FILES) {
      throw ProfileError(locate(file, tree, fd, "number"), "`number` is 0 to 65535");
    }
    SourceLocation where = locate(file, &file.locations, file.profile, "fd", index);
    if (fd.kind() == policy::Fd::UNSPECIFIED) {
      throw ProfileError(where, "fd \"" + fd.name() + "\" has no `kind`; ANY is one");
    }
    if (fd.from() == policy::Fd::MADE && count != 1) {
      throw ProfileError(locate(file, tree, fd, "from"),
                         "a range is HANDED or PLACED: its numbers cannot be left to the kernel");
    }
    for (const PolicyFd& other : policy.fds) {
      if (other.name == fd.name()) {
        throw ProfileError(locate(file, tree, fd, "name"),
                           "there is another fd \"" + fd.name() + "\" at " + describe(other.where));
      }
      // The kernel reuses the number of an fd that start-up closes.
      bool follows = (other.closed && fd.from() == policy::Fd::MADE) || (fd.closed() && other.made);
      if (fd.number() < other.number + other.count && other.number < fd.number() + count &&
          !follows) {
        throw ProfileError(locate(file, tree, fd, "number"),
                           "fd \"" + fd.name() + "\" takes a number of fd \"" + other.name +
                               "\" (" + std::to_string(other.number) + " to " +
                               std::to_string(other.number + other.count - 1) + ")");
      }
    }
    std::string kind = policy::Fd::Kind_Name(fd.kind());
    std::transform(kind.begin(), kind.end(), kind.begin(), ::tolower);
    policy.fds.push_back({fd.name(), fd.number(), count, kind, fd.from() == policy::Fd::HANDED,
                          fd.optional(), fd.closed(), fd.from() == policy::Fd::MADE, where});
  }

  void addLimits(const SourceFile& file) {
    for (int i = 0; i < file.profile.limit_size(); i++)
      attempt([&] { addLimit(file, i); });
  }

  void addLimit(const SourceFile& file, int index) {
    const policy::Limit& limit = file.profile.limit(index);
    const Locations* tree = inside(&file.locations, file.profile, "limit", index);
    auto resource = findConstant("RLIMIT_" + limit.resource());
    if (!resource) {
      throw ProfileError(locate(file, tree, limit, "resource"),
                         "there is no limit \"" + limit.resource() +
                             "\"; there are AS, CORE, CPU, DATA, FSIZE, MEMLOCK, NOFILE, NPROC "
                             "and STACK");
    }
    for (const PolicyLimit& other : policy.limits) {
      if (other.resource == int(*resource)) {
        throw ProfileError(locate(file, tree, limit, "resource"),
                           "limit " + limit.resource() + " was given before");
      }
    }
    if (*resource == RLIMIT_NOFILE && limit.value() > MAX_FILES) {
      throw ProfileError(locate(file, tree, limit, "value"),
                         "NOFILE is at most " + std::to_string(MAX_FILES) +
                             ", the largest number of an fd there may be in a profile");
    }
    policy.limits.push_back({int(*resource), limit.value(), limit.resource()});
  }

  void addFilters() {
    WrittenStage written[3];
    for (const auto& source : sources) {
      const policy::Stage* stages[] = {&source->profile.start(), &source->profile.ready(),
                                       &source->profile.run()};
      for (int i = 0; i < 3; i++)
        addStage(*source, STAGES[i], *stages[i], written[i]);
    }
    std::vector<PolicyFilter> threads;
    for (const auto& source : sources) {
      for (int i = 0; i < source->profile.thread_size(); i++)
        attempt([&] { addThread(*source, i, threads); });
    }

    // What a later filter allows, an earlier one must: a stage holds its own rules and those after,
    // less what its narrows, and those of the stages before, take from them.
    std::vector<Written> rules[3];
    for (int stage = 2; stage >= 0; stage--) {
      for (int i = stage; i < 3; i++)
        rules[stage].insert(rules[stage].end(), written[i].rules.begin(), written[i].rules.end());
      for (int i = 0; i <= stage; i++) {
        for (const WrittenNarrow& narrow : written[i].narrows)
          attempt([&] { apply(narrow, STAGES[i], i == stage, rules[stage]); });
      }
    }
    addNestedFilters(plain(rules[0]), plain(rules[1]), plain(rules[2]), std::move(threads));
  }

  void addNestedFilters(std::vector<PolicyRule> start, std::vector<PolicyRule> ready,
                        std::vector<PolicyRule> run, std::vector<PolicyFilter> threads) {
    for (const PolicyFilter& thread : threads)
      start.insert(start.end(), thread.rules.begin(), thread.rules.end());
    bool runIsNarrower = !same(verdictsOf(ready), verdictsOf(run));
    bool hasReady = !ready.empty();
    if (runIsNarrower) ready.push_back(filterItself());
    if (hasReady || !threads.empty()) start.push_back(filterItself());
    start.push_back(execution());

    addFilter("start", std::move(start));
    if (hasReady) addFilter("ready", std::move(ready));
    if (runIsNarrower && !run.empty()) addFilter("run", std::move(run));
    for (PolicyFilter& thread : threads)
      addFilter(thread.stage, std::move(thread.rules));
  }

  void addFilter(const std::string& stage, std::vector<PolicyRule>&& rules) {
    // glibc tries clone3 first, whose arguments no filter can see, and falls back to clone.
    PolicyRule clone3 = builtIn("clone3", SCMP_SYS(clone3), "glibc then uses clone");
    clone3.error = ENOSYS;
    clone3.fail = "ENOSYS";
    rules.push_back(clone3);
    attempt([&] {
      Verdicts verdicts = verdictsOf(rules);
      policy.filters.push_back({stage, std::move(verdicts), std::move(rules)});
    });
  }

  static PolicyRule builtIn(const std::string& name, int syscall, const std::string& reason) {
    return {"start", {}, {}, name, syscall, {}, 0, "", reason, {}};
  }

  static PolicyArgument equals(uint32_t index, uint64_t value, const std::string& text) {
    return {index, "= " + text, {}, {{index, Condition::MASKED_EQUAL, ALL_BITS, value}}};
  }

  // ActorSetup::enter().
  static PolicyRule filterItself() {
    PolicyRule rule = builtIn("seccomp", SCMP_SYS(seccomp), "the next filter is installed");
    rule.arguments.push_back(equals(0, 1, "SECCOMP_SET_MODE_FILTER"));
    rule.arguments.push_back({1,
                              "within SECCOMP_FILTER_FLAG_TSYNC",
                              {},
                              {{1, Condition::MASKED_EQUAL, ~uint64_t{1}, 0}}});
    return rule;
  }

  // The launcher's execveat, of the one fd that holds the program.
  PolicyRule execution() const {
    uint64_t fd = executableFd(policy.fds.data(), policy.fds.size(), policy.limits.data(),
                               policy.limits.size());
    PolicyRule rule = builtIn("execveat", SCMP_SYS(execveat), "the program begins");
    rule.arguments.push_back(equals(0, fd, "the program's fd, " + std::to_string(fd)));
    return rule;
  }

  void addStage(const SourceFile& file, const std::string& name, const policy::Stage& stage,
                WrittenStage& written) {
    const Locations* tree = inside(&file.locations, file.profile, name);
    addRules(file, name, stage, tree, written.rules);
    std::set<const SourceFile*> reaches;
    addBeneath(file, reaches);
    addNarrows(file, name, stage, tree, reaches, written.narrows);
  }

  // `holder` is a Stage or a Thread.
  template <typename Holder>
  void addRules(const SourceFile& file, const std::string& stage, const Holder& holder,
                const Locations* tree, std::vector<Written>& rules) {
    size_t first = rules.size();
    for (int i = 0; i < holder.rule_size(); i++) {
      RuleSite site{file, holder.rule(i), inside(tree, holder, "rule", i),
                    locate(file, tree, holder, "rule", i)};
      attempt([&] {
        for (PolicyRule& rule : compileRule(site, stage, policy.fds)) {
          refuseDuplicate(rule, rules, first);
          rules.push_back({&file, std::move(rule)});
        }
      });
    }
  }

  static void refuseDuplicate(const PolicyRule& rule, const std::vector<Written>& rules,
                              size_t first) {
    for (size_t i = first; i < rules.size(); i++) {
      if (!sameConditions(rule, rules[i].rule)) continue;
      throw ProfileError(rule.name, "the same rule for " + rule.syscallName + " stands at " +
                                        describe(rules[i].rule.where) + "; keep one of them");
    }
  }

  template <typename Holder>
  void addNarrows(const SourceFile& file, const std::string& stage, const Holder& holder,
                  const Locations* tree, const std::set<const SourceFile*>& reaches,
                  std::vector<WrittenNarrow>& narrows) {
    for (int i = 0; i < holder.narrow_size(); i++) {
      RuleSite site{file, holder.narrow(i), inside(tree, holder, "narrow", i),
                    locate(file, tree, holder, "narrow", i)};
      attempt([&] {
        for (PolicyRule& narrow : compileNarrow(site, stage, policy.fds))
          narrows.push_back({reaches, std::move(narrow)});
      });
    }
  }

  // `must`: a narrow that finds nothing to narrow is an error.
  static void apply(const WrittenNarrow& narrow, const std::string& stage, bool must,
                    std::vector<Written>& rules) {
    std::vector<Written> kept;
    bool found = false;
    for (Written& written : rules) {
      bool meant =
          written.rule.syscall == narrow.narrow.syscall && narrow.reaches.count(written.file) != 0;
      found = found || meant;
      if (!meant) {
        kept.push_back(std::move(written));
      } else if (!narrow.narrow.arguments.empty()) {
        PolicyRule rule = narrowed(written.rule, narrow.narrow);
        if (!rule.verdicts().empty()) kept.push_back({written.file, std::move(rule)});
      }
    }
    rules = std::move(kept);
    if (must && !found) {
      throw ProfileError(narrow.narrow.name, "narrows nothing: no file included here allows " +
                                                 narrow.narrow.syscallName + " in " + stage +
                                                 "; drop it");
    }
  }

  void addThread(const SourceFile& file, int index, std::vector<PolicyFilter>& threads) {
    const policy::Thread& thread = file.profile.thread(index);
    const Locations* tree = inside(&file.locations, file.profile, "thread", index);
    checkName(file, tree, thread, "name", thread.name());
    std::string stage = "thread:" + thread.name();
    for (const PolicyFilter& other : threads) {
      if (other.stage == stage) {
        throw ProfileError(locate(file, tree, thread, "name"),
                           "there is another thread \"" + thread.name() + "\"");
      }
    }
    std::vector<Written> rules;
    std::set<const SourceFile*> included;
    for (int i = 0; i < thread.include_size(); i++) {
      SourceLocation where = locate(file, tree, thread, "include", i);
      addThreadInclude(thread.include(i), where, rules, included);
    }
    addRules(file, stage, thread, tree, rules);
    std::vector<WrittenNarrow> narrows;
    addNarrows(file, stage, thread, tree, included, narrows);
    for (const WrittenNarrow& narrow : narrows)
      attempt([&] { apply(narrow, stage, true, rules); });
    threads.push_back({stage, {}, plain(rules)});
  }

  // The `run` rules of the file and of what it includes.
  void addThreadInclude(const std::string& name, const SourceLocation& where,
                        std::vector<Written>& rules, std::set<const SourceFile*>& included) {
    threadSources.push_back(readSources(files, name, &where));
    WrittenStage written;
    for (const auto& source : threadSources.back()) {
      addStage(*source, "run", source->profile.run(), written);
      included.insert(source.get());
    }
    for (const WrittenNarrow& narrow : written.narrows)
      apply(narrow, "run", true, written.rules);
    for (Written& rule : written.rules)
      rules.push_back(std::move(rule));
  }

  static std::vector<PolicyRule> plain(std::vector<Written>& written) {
    std::vector<PolicyRule> rules;
    for (Written& rule : written)
      rules.push_back(std::move(rule.rule));
    return rules;
  }

  void addBudgets() {
    const SourceFile& file = *sources.back();
    for (int i = 0; i < file.profile.budget_size(); i++)
      attempt([&] { addBudget(file, i); });
  }

  void addBudget(const SourceFile& file, int index) {
    const policy::Budget& budget = file.profile.budget(index);
    const Locations* tree = inside(&file.locations, file.profile, "budget", index);
    SourceLocation where = locate(file, &file.locations, file.profile, "budget", index);
    const PolicyFilter* filter = filterOf(policy, budget.filter());
    if (filter == nullptr) {
      std::string known;
      for (const std::string& stage : stagesOf(policy))
        known += (known.empty() ? "" : ", ") + stage;
      throw ProfileError(locate(file, tree, budget, "filter"),
                         "the profile has no filter \"" + budget.filter() + "\"; it has " + known);
    }
    for (const PolicyBudget& other : policy.budgets) {
      if (other.filter == budget.filter()) {
        throw ProfileError(where, "there is another budget for " + budget.filter());
      }
    }
    policy.budgets.push_back({budget.filter(), budget.syscalls(), budget.unconditional(), where});
    Reach reach = reachOf(*filter);
    require(where, budget.filter(), "system calls", reach.total(), budget.syscalls(),
            reach.conditional, reach.unconditional);
    require(where, budget.filter(), "system calls without a condition on an argument",
            reach.unconditional.size(), budget.unconditional(), {}, reach.unconditional);
  }

  static void require(const SourceLocation& where, const std::string& filter,
                      const std::string& what, size_t count, size_t allowed,
                      const std::vector<std::string>& some,
                      const std::vector<std::string>& others) {
    if (count <= allowed) return;
    std::vector<std::string> names = some;
    names.insert(names.end(), others.begin(), others.end());
    std::sort(names.begin(), names.end());
    std::string list;
    for (const std::string& name : names)
      list += (list.empty() ? "" : ", ") + name;
    throw ProfileError(where, filter + " lets " + std::to_string(count) + " " + what +
                                  " through, and its budget is " + std::to_string(allowed) + ": " +
                                  list);
  }

  static auto key(const Condition& c) { return std::tie(c.argument, c.test, c.mask, c.value); }

  static bool before(const Verdict& a, const Verdict& b) {
    if (a.syscall != b.syscall) return a.syscall < b.syscall;
    if (a.error != b.error) return a.error < b.error;
    return std::lexicographical_compare(
        a.conditions.begin(), a.conditions.end(), b.conditions.begin(), b.conditions.end(),
        [](const Condition& x, const Condition& y) { return key(x) < key(y); });
  }

  // What the rules say, sorted, without repetitions and without what an unconditional verdict on
  // the same call makes idle.
  static Verdicts verdictsOf(const std::vector<PolicyRule>& rules) {
    Verdicts verdicts;
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
    Verdicts kept;
    std::set<int> unconditional;
    for (Verdict& verdict : verdicts) {
      bool repeats = !kept.empty() && !before(kept.back(), verdict);
      if (repeats || unconditional.count(verdict.syscall) != 0) continue;
      if (verdict.conditions.empty()) unconditional.insert(verdict.syscall);
      kept.push_back(std::move(verdict));
    }
    return kept;
  }

  static bool same(const Verdicts& a, const Verdicts& b) {
    return a.size() == b.size() &&
           std::equal(a.begin(), a.end(), b.begin(), [](const Verdict& x, const Verdict& y) {
             return !before(x, y) && !before(y, x);
           });
  }

  const ProfileFiles& files;
  const std::string& path;
  std::vector<std::unique_ptr<SourceFile>> sources;
  std::vector<std::vector<std::unique_ptr<SourceFile>>> threadSources;
  PolicyReading reading;
  Policy& policy = reading.policy;
};

}  // namespace

const PolicyFilter* filterOf(const Policy& policy, const std::string& stage) {
  const PolicyFilter* ready = nullptr;
  for (const PolicyFilter& filter : policy.filters) {
    if (filter.stage == stage) return &filter;
    if (filter.stage == "ready") ready = &filter;
  }
  return stage == "run" ? ready : nullptr;
}

std::vector<std::string> stagesOf(const Policy& policy) {
  std::vector<std::string> stages;
  for (const PolicyFilter& filter : policy.filters) {
    stages.push_back(filter.stage);
    bool shared = filter.stage == "ready" && filterOf(policy, "run") == &filter;
    if (shared) stages.push_back("run");
  }
  return stages;
}

Reach reachOf(const PolicyFilter& filter) {
  std::map<std::string, bool> conditional;
  for (const PolicyRule& rule : filter.rules) {
    if (rule.error != 0) continue;
    auto [entry, isNew] = conditional.try_emplace(rule.syscallName, true);
    entry->second = entry->second && !rule.arguments.empty();
  }
  Reach reach;
  for (const auto& [name, conditions] : conditional)
    (conditions ? reach.conditional : reach.unconditional).push_back(name);
  return reach;
}

PolicyReading examinePolicy(const ProfileFiles& files, const std::string& path) {
  return Resolver(files, path).resolve();
}

Policy readPolicy(const ProfileFiles& files, const std::string& path) {
  PolicyReading reading = examinePolicy(files, path);
  if (!reading.errors.empty()) throw reading.errors.front();
  return std::move(reading.policy);
}

Policy readPolicy(const std::string& root, const std::string& path) {
  return readPolicy(FolderFiles(root), path);
}

}  // namespace troupe::sandbox
