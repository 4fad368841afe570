#include "sandbox/filter_resolver.h"

#include <seccomp.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <tuple>

#include "sandbox/profile.h"
#include "sandbox/rule_compiler.h"
#include "sandbox/verdict_sets.h"

namespace troupe::sandbox {
namespace {

using Locations = google::protobuf::TextFormat::ParseInfoTree;

constexpr uint64_t ALL_BITS = ~uint64_t{0};

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

class FilterResolver {
 public:
  FilterResolver(const ProfileFiles& files, const std::vector<std::unique_ptr<SourceFile>>& sources,
                 const Policy& policy, const std::function<void(const ProfileError&)>& report)
      : files(files), sources(sources), policy(policy), report(report) {}

  std::vector<PolicyFilter> resolve() {
    addFilters();
    return std::move(filters);
  }

 private:
  using Verdicts = std::vector<Verdict>;

  template <typename Step>
  void attempt(Step&& step) {
    try {
      step();
    } catch (const ProfileError& error) {
      report(error);
    }
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
    attempt([&] { requireStagesThatNarrow(); });
  }

  // So by construction; and what a filter gives away it has given for good.
  void requireStagesThatNarrow() const {
    if (filters.empty() || filters[0].stage != STAGES[0]) return;  // there was an error
    const PolicyFilter *start = nullptr, *before = nullptr;
    for (const PolicyFilter& filter : filters) {
      bool thread = filter.stage.compare(0, 7, "thread:") == 0;
      if (start != nullptr) requireNested(thread ? *start : *before, filter);
      if (start == nullptr) start = &filter;
      if (!thread) before = &filter;
    }
  }

  void addFilter(const std::string& stage, std::vector<PolicyRule>&& rules) {
    // glibc tries clone3 first, whose arguments no filter can see, and falls back to clone.
    PolicyRule clone3 = builtIn("clone3", SCMP_SYS(clone3), "glibc then uses clone");
    clone3.error = ENOSYS;
    clone3.fail = "ENOSYS";
    rules.push_back(clone3);
    attempt([&] {
      Verdicts verdicts = verdictsOf(rules);
      filters.push_back({stage, std::move(verdicts), std::move(rules)});
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
    requireName(file, tree, thread, "name", thread.name());
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
      refuseUnheardWords(*source);
      addStage(*source, "run", source->profile.run(), written);
      included.insert(source.get());
    }
    for (const WrittenNarrow& narrow : written.narrows)
      apply(narrow, "run", true, written.rules);
    for (Written& rule : written.rules)
      rules.push_back(std::move(rule));
  }

  // A thread takes rules from its includes and no more. What else such a file asks for would go
  // unheard, and the jail be weaker than somebody reads there.
  void refuseUnheardWords(const SourceFile& file) const {
    bool heard = std::any_of(sources.begin(), sources.end(),
                             [&](const auto& source) { return source->path == file.path; });
    if (heard) return;
    const auto& profile = file.profile;
    std::vector<const google::protobuf::FieldDescriptor*> fields;
    profile.GetReflection()->ListFields(profile, &fields);
    for (const auto* field : fields) {
      if (field->name() == "include" || field->name() == "run") continue;
      throw ProfileError(locate(file, &file.locations, profile, field->name()),
                         "a thread takes only the `run` rules of its includes, and nothing else "
                         "includes this file: `" +
                             field->name() + "` has no effect; include the file in " +
                             sources.back()->path + " itself, too, or drop it here");
    }
  }

  static std::vector<PolicyRule> plain(std::vector<Written>& written) {
    std::vector<PolicyRule> rules;
    for (Written& rule : written)
      rules.push_back(std::move(rule.rule));
    return rules;
  }

  const ProfileFiles& files;
  const std::vector<std::unique_ptr<SourceFile>>& sources;
  const Policy& policy;
  const std::function<void(const ProfileError&)>& report;
  std::vector<std::vector<std::unique_ptr<SourceFile>>> threadSources;
  std::vector<PolicyFilter> filters;
};

}  // namespace

std::vector<PolicyFilter> resolveFilters(const ProfileFiles& files,
                                         const std::vector<std::unique_ptr<SourceFile>>& sources,
                                         const Policy& policy,
                                         const std::function<void(const ProfileError&)>& report) {
  return FilterResolver(files, sources, policy, report).resolve();
}

}  // namespace troupe::sandbox
