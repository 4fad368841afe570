#include "sandbox/policy.h"

#include <seccomp.h>
#include <sys/resource.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "sandbox/constants.h"
#include "sandbox/profile.h"
#include "sandbox/profile_source.h"

namespace troupe::sandbox {
namespace {

using Locations = google::protobuf::TextFormat::ParseInfoTree;
using Alternatives = std::vector<Condition>;

constexpr uint64_t ALL_BITS = ~uint64_t{0};

// A rule whose alternatives multiply beyond this is a mistake, and would make a slow filter.
constexpr size_t MAX_VERDICTS_PER_RULE = 1024;

// No profile may allow these once the actor serves; what one of them would be good for has been
// done before, or is somebody else's work.
const std::set<std::string>& neverInRun() {
  static const auto* const NAMES = new std::set<std::string>{"bind",
                                                             "bpf",
                                                             "chroot",
                                                             "clone3",
                                                             "connect",
                                                             "execve",
                                                             "execveat",
                                                             "fork",
                                                             "fsconfig",
                                                             "fsmount",
                                                             "fsopen",
                                                             "init_module",
                                                             "io_uring_setup",
                                                             "kill",
                                                             "memfd_create",
                                                             "mount",
                                                             "move_mount",
                                                             "open",
                                                             "open_tree",
                                                             "openat",
                                                             "openat2",
                                                             "pidfd_getfd",
                                                             "pidfd_open",
                                                             "pivot_root",
                                                             "process_madvise",
                                                             "process_vm_readv",
                                                             "process_vm_writev",
                                                             "ptrace",
                                                             "setns",
                                                             "socket",
                                                             "umount2",
                                                             "unshare",
                                                             "userfaultfd",
                                                             "vfork",
                                                             "io_uring_register"};
  return *NAMES;
}

struct RuleSite {
  const SourceFile& file;
  const policy::Rule& rule;
  const Locations* tree;
  SourceLocation where;

  SourceLocation at(const std::string& field, int index = 0) const {
    return locate(file, tree, rule, field, index);
  }
};

class Resolver {
 public:
  Resolver(const std::string& root, const std::string& path)
      : root(root), sources(readSources(root, path)) {}

  Policy resolve() {
    const SourceFile& main = *sources.back();
    policy.actor = main.profile.actor();
    checkName(main, &main.locations, main.profile, "actor", policy.actor);
    for (const auto& source : sources) {
      if (source.get() != &main && !source->profile.actor().empty()) {
        throw ProfileError(locate(*source, &source->locations, source->profile, "actor"),
                           "only a shared rule set can be included; this is the profile of \"" +
                               source->profile.actor() + "\"");
      }
      addFds(*source);
      addLimits(*source);
    }
    addFilters();
    return std::move(policy);
  }

 private:
  using Verdicts = std::vector<Verdict>;

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

  void addFds(const SourceFile& file) {
    for (int i = 0; i < file.profile.fd_size(); i++) {
      const policy::Fd& fd = file.profile.fd(i);
      const Locations* tree = inside(&file.locations, file.profile, "fd", i);
      checkName(file, tree, fd, "name", fd.name());
      uint32_t count = fd.has_count() ? fd.count() : 1;
      if (count == 0 || count > 4096) {
        throw ProfileError(locate(file, tree, fd, "count"), "`count` is 1 to 4096");
      }
      if (fd.number() > 65535) {
        throw ProfileError(locate(file, tree, fd, "number"), "`number` is 0 to 65535");
      }
      if (fd.kind() == policy::Fd::UNSPECIFIED) {
        throw ProfileError(locate(file, &file.locations, file.profile, "fd", i),
                           "fd \"" + fd.name() + "\" has no `kind`; ANY is one");
      }
      if (fd.from() == policy::Fd::MADE && count != 1) {
        throw ProfileError(locate(file, tree, fd, "from"),
                           "a range is HANDED or PLACED: its numbers cannot be left to the kernel");
      }
      for (const PolicyFd& other : policy.fds) {
        if (other.name == fd.name()) {
          throw ProfileError(locate(file, tree, fd, "name"),
                             "there is another fd \"" + fd.name() + "\"");
        }
        // The kernel reuses the number of an fd that start-up closes.
        bool follows =
            (other.closed && fd.from() == policy::Fd::MADE) || (fd.closed() && other.made);
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
                            fd.optional(), fd.closed(), fd.from() == policy::Fd::MADE});
    }
  }

  void addLimits(const SourceFile& file) {
    for (int i = 0; i < file.profile.limit_size(); i++) {
      const policy::Limit& limit = file.profile.limit(i);
      const Locations* tree = inside(&file.locations, file.profile, "limit", i);
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
      policy.limits.push_back({int(*resource), limit.value()});
    }
  }

  void addFilters() {
    Verdicts start, ready, run;
    for (const auto& source : sources) {
      addStage(*source, "start", source->profile.start(), start);
      addStage(*source, "ready", source->profile.ready(), ready);
      addStage(*source, "run", source->profile.run(), run);
    }
    std::vector<PolicyFilter> threads;
    for (const auto& source : sources) {
      for (int i = 0; i < source->profile.thread_size(); i++)
        addThread(*source, i, threads);
    }

    // What a later filter allows, an earlier one must: a stage holds its own rules and those after.
    ready.insert(ready.end(), run.begin(), run.end());
    start.insert(start.end(), ready.begin(), ready.end());
    for (const PolicyFilter& thread : threads) {
      start.insert(start.end(), thread.verdicts.begin(), thread.verdicts.end());
    }
    normalize(ready);
    normalize(run);

    bool runIsNarrower = !same(ready, run);
    bool hasReady = !ready.empty();
    if (runIsNarrower) ready.push_back(filterItself());
    if (hasReady || !threads.empty()) start.push_back(filterItself());
    start.push_back(execution());

    addFilter("start", std::move(start));
    if (hasReady) addFilter("ready", std::move(ready));
    if (runIsNarrower && !run.empty()) addFilter("run", std::move(run));
    for (PolicyFilter& thread : threads)
      addFilter(thread.stage, std::move(thread.verdicts));
  }

  void addFilter(const std::string& stage, Verdicts&& verdicts) {
    // glibc tries clone3 first, whose arguments no filter can see, and falls back to clone.
    verdicts.push_back({SCMP_SYS(clone3), {}, ENOSYS});
    normalize(verdicts);
    policy.filters.push_back({stage, std::move(verdicts)});
  }

  // ActorSetup::enter().
  static Verdict filterItself() {
    return {SCMP_SYS(seccomp),
            {{0, Condition::MASKED_EQUAL, ALL_BITS, 1 /* SECCOMP_SET_MODE_FILTER */},
             {1, Condition::MASKED_EQUAL, ~uint64_t{1} /* SECCOMP_FILTER_FLAG_TSYNC */, 0}},
            0};
  }

  // The launcher's execveat, of the one fd that holds the program.
  Verdict execution() const {
    uint32_t fd = executableFd(policy.fds.data(), policy.fds.size());
    return {SCMP_SYS(execveat), {{0, Condition::MASKED_EQUAL, ALL_BITS, fd}}, 0};
  }

  void addStage(const SourceFile& file, const std::string& name, const policy::Stage& stage,
                Verdicts& verdicts) {
    const Locations* tree = inside(&file.locations, file.profile, name);
    for (int i = 0; i < stage.rule_size(); i++) {
      RuleSite site{file, stage.rule(i), inside(tree, stage, "rule", i),
                    locate(file, tree, stage, "rule", i)};
      addRule(site, name != "start", verdicts);
    }
  }

  void addThread(const SourceFile& file, int index, std::vector<PolicyFilter>& threads) {
    const policy::Thread& thread = file.profile.thread(index);
    const Locations* tree = inside(&file.locations, file.profile, "thread", index);
    checkName(file, tree, thread, "name", thread.name());
    PolicyFilter filter{"thread:" + thread.name(), {}};
    for (const PolicyFilter& other : threads) {
      if (other.stage == filter.stage) {
        throw ProfileError(locate(file, tree, thread, "name"),
                           "there is another thread \"" + thread.name() + "\"");
      }
    }
    for (int i = 0; i < thread.include_size(); i++) {
      SourceLocation where = locate(file, tree, thread, "include", i);
      for (const auto& source : readSources(root, thread.include(i), &where)) {
        addStage(*source, "run", source->profile.run(), filter.verdicts);
      }
    }
    for (int i = 0; i < thread.rule_size(); i++) {
      RuleSite site{file, thread.rule(i), inside(tree, thread, "rule", i),
                    locate(file, tree, thread, "rule", i)};
      addRule(site, true, filter.verdicts);
    }
    threads.push_back(std::move(filter));
  }

  void addRule(const RuleSite& site, bool serving, Verdicts& verdicts) {
    const policy::Rule& rule = site.rule;
    if (rule.syscall_size() == 0) throw ProfileError(site.where, "a rule names a `syscall`");
    if (rule.reason().empty()) {
      throw ProfileError(site.where, "the rule for " + rule.syscall(0) + " has no `reason`");
    }
    int error = 0;
    if (!rule.fail().empty()) error = errorNumber(site);

    auto combinations = combine(site, argumentsOf(site));
    for (int i = 0; i < rule.syscall_size(); i++) {
      const std::string& name = rule.syscall(i);
      int number = seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, name.c_str());
      if (number < 0) {
        throw ProfileError(site.at("syscall", i), "x86_64 has no system call \"" + name + "\"");
      }
      if (name == "clone3") {
        throw ProfileError(site.at("syscall", i),
                           "clone3 fails with ENOSYS in every profile: filters cannot see its "
                           "arguments");
      }
      if (serving && error == 0 && neverInRun().count(name) != 0) {
        throw ProfileError(site.at("syscall", i),
                           name + " is never allowed once an actor is ready; `start` may have it");
      }
      if (name == "ioctl" && error == 0) checkIoctl(site);
      for (const auto& conditions : combinations) {
        verdicts.push_back({number, conditions, error});
      }
    }
  }

  static int errorNumber(const RuleSite& site) {
    static constexpr std::pair<const char*, int> ERRORS[] = {
        {"EACCES", EACCES}, {"EBADF", EBADF},   {"EINVAL", EINVAL}, {"ENOENT", ENOENT},
        {"ENOSYS", ENOSYS}, {"ENOTTY", ENOTTY}, {"EPERM", EPERM},   {"EOPNOTSUPP", EOPNOTSUPP}};
    for (const auto& [name, number] : ERRORS) {
      if (site.rule.fail() == name) return number;
    }
    throw ProfileError(site.at("fail"),
                       "`fail` is \"" + site.rule.fail() +
                           "\"; it is EACCES, EBADF, EINVAL, ENOENT, ENOSYS, ENOTTY, EPERM or "
                           "EOPNOTSUPP");
  }

  // An ioctl's number says what it does, and no set of bits in it has a meaning of its own.
  static void checkIoctl(const RuleSite& site) {
    for (const policy::Argument& argument : site.rule.arg()) {
      if (argument.index() == 1 && argument.value_size() > 0 && argument.mask().empty()) return;
    }
    throw ProfileError(site.at("syscall"),
                       "ioctls are named one by one: arg { index: 1 value: \"KVM_RUN\" }");
  }

  // For each argument with a condition, the alternatives it may have.
  std::vector<Alternatives> argumentsOf(const RuleSite& site) const {
    std::vector<Alternatives> arguments;
    std::set<uint32_t> seen;
    if (site.rule.fd_size() > 0) {
      Alternatives alternatives;
      for (int i = 0; i < site.rule.fd_size(); i++) {
        addFd(site.rule.fd(i), 0, site.at("fd", i), alternatives);
      }
      arguments.push_back(alternatives);
      seen.insert(0);
    }
    for (int i = 0; i < site.rule.arg_size(); i++) {
      const policy::Argument& argument = site.rule.arg(i);
      const Locations* tree = inside(site.tree, site.rule, "arg", i);
      SourceLocation where = site.at("arg", i);
      if (argument.index() > 5) {
        throw ProfileError(locate(site.file, tree, argument, "index"), "`index` is 0 to 5");
      }
      if (!seen.insert(argument.index()).second) {
        throw ProfileError(where, "the rule has another condition on argument " +
                                      std::to_string(argument.index()) +
                                      "; write a second rule instead");
      }
      arguments.push_back(alternativesOf(site, argument, tree, where));
    }
    return arguments;
  }

  Alternatives alternativesOf(const RuleSite& site, const policy::Argument& argument,
                              const Locations* tree, const SourceLocation& where) const {
    int given = (argument.fd_size() > 0) + (argument.value_size() > 0) +
                (argument.flags_size() > 0) + !argument.at_most().empty();
    if (given != 1) {
      throw ProfileError(where, "a condition has exactly one of `fd`, `value`, `flags`, `at_most`");
    }
    if (!argument.mask().empty() && argument.value_size() == 0) {
      throw ProfileError(where, "`mask` goes with `value`");
    }
    auto at = [&](const char* field, int index = 0) {
      return locate(site.file, tree, argument, field, index);
    };

    Alternatives alternatives;
    for (int i = 0; i < argument.fd_size(); i++) {
      addFd(argument.fd(i), argument.index(), at("fd", i), alternatives);
    }
    uint64_t mask = argument.mask().empty() ? ALL_BITS : word(argument.mask(), at("mask"));
    for (int i = 0; i < argument.value_size(); i++) {
      uint64_t value = word(argument.value(i), at("value", i));
      if ((value & ~mask) != 0) {
        throw ProfileError(at("value", i), "can never be: the value has bits outside of `mask`");
      }
      alternatives.push_back({argument.index(), Condition::MASKED_EQUAL, mask, value});
    }
    if (argument.flags_size() > 0) {
      uint64_t allowed = 0;
      for (int i = 0; i < argument.flags_size(); i++) {
        allowed |= word(argument.flags(i), at("flags", i));
      }
      alternatives.push_back({argument.index(), Condition::MASKED_EQUAL, ~allowed, 0});
    }
    if (!argument.at_most().empty()) {
      uint64_t limit = word(argument.at_most(), at("at_most"));
      alternatives.push_back({argument.index(), Condition::AT_MOST, 0, limit});
    }
    return alternatives;
  }

  // A range of fds is tested as a few blocks of 2^n numbers that begin at a multiple of 2^n.
  void addFd(const std::string& name, uint32_t argument, const SourceLocation& where,
             Alternatives& alternatives) const {
    for (const PolicyFd& fd : policy.fds) {
      if (fd.name != name) continue;
      uint64_t first = fd.number;
      uint64_t left = fd.count;
      while (left > 0) {
        uint64_t block = first == 0 ? uint64_t{1} << 31 : first & -first;
        while (block > left)
          block /= 2;
        alternatives.push_back({argument, Condition::MASKED_EQUAL, ~(block - 1), first});
        first += block;
        left -= block;
      }
      return;
    }
    std::string known;
    for (const PolicyFd& fd : policy.fds)
      known += (known.empty() ? "" : ", ") + fd.name;
    throw ProfileError(where, "the profile has no fd \"" + name + "\"; it has " + known);
  }

  static uint64_t word(const std::string& text, const SourceLocation& where) {
    uint64_t result = 0;
    size_t begin = 0;
    for (;;) {
      size_t end = text.find('|', begin);
      std::string part = text.substr(begin, end == std::string::npos ? end : end - begin);
      part.erase(0, part.find_first_not_of(' '));
      part.erase(part.find_last_not_of(' ') + 1);
      result |= single(part, where);
      if (end == std::string::npos) return result;
      begin = end + 1;
    }
  }

  static uint64_t single(const std::string& text, const SourceLocation& where) {
    if (!text.empty() && std::isdigit(static_cast<unsigned char>(text[0]))) {
      bool hex = text.size() > 2 && (text.compare(0, 2, "0x") == 0);
      size_t used = 0;
      try {
        uint64_t value = std::stoull(text, &used, hex ? 16 : 10);
        if (used == text.size()) return value;
      } catch (const std::logic_error&) {
        // Said below.
      }
      throw ProfileError(where, "\"" + text + "\" is not a decimal or 0x number of 64 bits");
    }
    if (auto value = findConstant(text)) return *value;
    std::string nearest = nearestConstant(text);
    throw ProfileError(where, "there is no constant \"" + text + "\" in sandbox/constants.cc" +
                                  (nearest.empty() ? "" : "; the nearest is " + nearest));
  }

  static std::vector<std::vector<Condition>> combine(const RuleSite& site,
                                                     const std::vector<Alternatives>& arguments) {
    std::vector<std::vector<Condition>> combinations{{}};
    for (const Alternatives& alternatives : arguments) {
      std::vector<std::vector<Condition>> longer;
      if (combinations.size() * alternatives.size() > MAX_VERDICTS_PER_RULE) {
        throw ProfileError(site.at("syscall"), "the rule has more than 1024 combinations");
      }
      for (const auto& combination : combinations) {
        for (const Condition& condition : alternatives) {
          longer.push_back(combination);
          longer.back().push_back(condition);
        }
      }
      combinations = std::move(longer);
    }
    return combinations;
  }

  static auto key(const Condition& c) { return std::tie(c.argument, c.test, c.mask, c.value); }

  static bool before(const Verdict& a, const Verdict& b) {
    if (a.syscall != b.syscall) return a.syscall < b.syscall;
    if (a.error != b.error) return a.error < b.error;
    return std::lexicographical_compare(
        a.conditions.begin(), a.conditions.end(), b.conditions.begin(), b.conditions.end(),
        [](const Condition& x, const Condition& y) { return key(x) < key(y); });
  }

  // Sorts, drops repetitions and what an unconditional verdict on the same call makes idle.
  static void normalize(Verdicts& verdicts) {
    for (Verdict& verdict : verdicts) {
      std::sort(verdict.conditions.begin(), verdict.conditions.end(),
                [](const Condition& a, const Condition& b) { return key(a) < key(b); });
    }
    std::sort(verdicts.begin(), verdicts.end(), before);
    Verdicts kept;
    for (Verdict& verdict : verdicts) {
      bool idle = std::any_of(kept.begin(), kept.end(), [&](const Verdict& other) {
        return other.syscall == verdict.syscall &&
               (other.conditions.empty() || (!before(other, verdict) && !before(verdict, other)));
      });
      if (!idle) kept.push_back(std::move(verdict));
    }
    verdicts = std::move(kept);
  }

  static bool same(const Verdicts& a, const Verdicts& b) {
    return a.size() == b.size() &&
           std::equal(a.begin(), a.end(), b.begin(), [](const Verdict& x, const Verdict& y) {
             return !before(x, y) && !before(y, x);
           });
  }

  const std::string& root;
  std::vector<std::unique_ptr<SourceFile>> sources;
  Policy policy;
};

}  // namespace

Policy readPolicy(const std::string& root, const std::string& path) {
  return Resolver(root, path).resolve();
}

}  // namespace troupe::sandbox
