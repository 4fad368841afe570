#include "sandbox/rule_compiler.h"

#include <seccomp.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <set>
#include <stdexcept>

#include "sandbox/start_only.h"
#include "sandbox/words.h"

namespace troupe::sandbox {
namespace {

using Locations = google::protobuf::TextFormat::ParseInfoTree;
using Alternatives = std::vector<Condition>;

constexpr uint64_t ALL_BITS = ~uint64_t{0};

// A rule whose alternatives multiply beyond this is a mistake, and would make a slow filter.
constexpr size_t MAX_VERDICTS_PER_RULE = 1024;

uint64_t word(const std::string& text, const SourceLocation& where) {
  try {
    return wordValue(text);
  } catch (const std::invalid_argument& error) {
    throw ProfileError(where, error.what());
  }
}

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts)
    all += (all.empty() ? "" : " or ") + text;
  return all;
}

// A range of fds is tested as a few blocks of 2^n numbers that begin at a multiple of 2^n.
void addBlocks(const PolicyFd& fd, uint32_t argument, Alternatives& alternatives) {
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
}

// Turns the conditions of one rule into what seccomp can test.
class ConditionReader {
 public:
  ConditionReader(const RuleSite& site, const std::string& stage, const std::vector<PolicyFd>& fds)
      : site(site), stage(stage), fds(fds) {}

  std::vector<PolicyArgument> read() const {
    std::vector<PolicyArgument> arguments;
    std::set<uint32_t> seen;
    if (site.rule.fd_size() > 0) {
      arguments.push_back(ofFds(site.rule.fd(), 0, [&](int i) { return site.at("fd", i); }));
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
      arguments.push_back(ofArgument(argument, tree, where));
    }
    return arguments;
  }

 private:
  template <typename Names, typename Locate>
  PolicyArgument ofFds(const Names& names, uint32_t index, Locate&& locateName) const {
    PolicyArgument result{index, "", {}, {}};
    for (int i = 0; i < names.size(); i++) {
      const PolicyFd& fd = find(names.Get(i), locateName(i));
      if (fd.closed && stage != "start") {
        throw ProfileError(locateName(i), "can never be: fd \"" + fd.name +
                                              "\" is closed once the actor is ready, and its "
                                              "number may be another's then; `start` may have it");
      }
      if (std::count(result.fds.begin(), result.fds.end(), fd.name) != 0) {
        throw ProfileError(locateName(i), "fd \"" + fd.name + "\" is given twice; drop one");
      }
      result.fds.push_back(fd.name);
      addBlocks(fd, index, result.alternatives);
    }
    result.text = "= " + joined(result.fds);
    return result;
  }

  const PolicyFd& find(const std::string& name, const SourceLocation& where) const {
    std::string known;
    for (const PolicyFd& fd : fds) {
      if (fd.name == name) return fd;
      known += (known.empty() ? "" : ", ") + fd.name;
    }
    throw ProfileError(where, "the profile has no fd \"" + name + "\"; it has " +
                                  (known.empty() ? "none" : known));
  }

  PolicyArgument ofArgument(const policy::Argument& argument, const Locations* tree,
                            const SourceLocation& where) const {
    int given = (argument.fd_size() > 0) + (argument.value_size() > 0) +
                (argument.flags_size() > 0) + !argument.at_most().empty();
    if (given != 1) {
      throw ProfileError(where, "a condition has exactly one of `fd`, `value`, `flags`, `at_most`");
    }
    auto at = [&](const char* field, int index = 0) {
      return locate(site.file, tree, argument, field, index);
    };
    if (!argument.mask().empty() && argument.value_size() == 0) {
      throw ProfileError(at("mask"), "`mask` goes with `value`");
    }

    if (argument.fd_size() > 0) {
      return ofFds(argument.fd(), argument.index(), [&](int i) { return at("fd", i); });
    }
    if (argument.value_size() > 0) return ofValues(argument, at);
    if (argument.flags_size() > 0) return ofFlags(argument, at);
    uint64_t limit = word(argument.at_most(), at("at_most"));
    if (limit == ALL_BITS) {
      throw ProfileError(at("at_most"), "holds for every number; leave the condition out");
    }
    return {argument.index(),
            "at most " + argument.at_most(),
            {},
            {{argument.index(), Condition::AT_MOST, 0, limit}}};
  }

  template <typename At>
  PolicyArgument ofValues(const policy::Argument& argument, At& at) const {
    PolicyArgument result{argument.index(), "", {}, {}};
    uint64_t mask = argument.mask().empty() ? ALL_BITS : word(argument.mask(), at("mask", 0));
    if (mask == 0) {
      throw ProfileError(at("mask", 0),
                         "a mask without bits tests nothing; leave the condition out");
    }
    std::vector<std::string> words;
    for (int i = 0; i < argument.value_size(); i++) {
      uint64_t value = word(argument.value(i), at("value", i));
      if ((value & ~mask) != 0) {
        throw ProfileError(at("value", i), "can never be: the value has bits outside of `mask`");
      }
      for (const Condition& other : result.alternatives) {
        if (other.value == value) {
          throw ProfileError(at("value", i), "the value is given twice; drop one");
        }
      }
      result.alternatives.push_back({argument.index(), Condition::MASKED_EQUAL, mask, value});
      words.push_back(argument.value(i));
    }
    result.text = (argument.mask().empty() ? "= " : "& " + argument.mask() + " = ") + joined(words);
    return result;
  }

  template <typename At>
  PolicyArgument ofFlags(const policy::Argument& argument, At& at) const {
    uint64_t allowed = 0;
    std::string text;
    for (int i = 0; i < argument.flags_size(); i++) {
      allowed |= word(argument.flags(i), at("flags", i));
      text += (i == 0 ? "" : "|") + argument.flags(i);
    }
    if (allowed == ALL_BITS) {
      throw ProfileError(at("flags", 0), "holds for every number; leave the condition out");
    }
    return {argument.index(),
            "within " + text,
            {},
            {{argument.index(), Condition::MASKED_EQUAL, ~allowed, 0}}};
  }

  const RuleSite& site;
  const std::string& stage;
  const std::vector<PolicyFd>& fds;
};

int errorNumber(const RuleSite& site) {
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
void refuseBitTests(const RuleSite& site) {
  for (int i = 0; i < site.rule.arg_size(); i++) {
    const policy::Argument& argument = site.rule.arg(i);
    if (argument.index() != 1 || (argument.value_size() > 0 && argument.mask().empty())) continue;
    throw ProfileError(site.at("arg", i),
                       "the bits of an ioctl's number have no meaning of their own, nor has its "
                       "size; ioctls are named one by one: value: \"KVM_RUN\"");
  }
}

void requireNamedIoctls(const RuleSite& site, int index) {
  for (const policy::Argument& argument : site.rule.arg()) {
    if (argument.index() == 1) return;
  }
  throw ProfileError(site.at("syscall", index),
                     "ioctls are named one by one: arg { index: 1 value: \"KVM_RUN\" }");
}

enum class Form { RULE, NARROW };

void checkCall(const RuleSite& site, int index, const std::string& stage, Form form) {
  const std::string& name = site.rule.syscall(index);
  for (int i = 0; i < index; i++) {
    if (site.rule.syscall(i) == name) {
      throw ProfileError(site.at("syscall", index), name + " is given twice; drop one");
    }
  }
  if (name == "ioctl") refuseBitTests(site);
  if (form == Form::NARROW) return;
  if (name == "clone3") {
    throw ProfileError(site.at("syscall", index),
                       "clone3 fails with ENOSYS in every profile: filters cannot see its "
                       "arguments");
  }
  if (!site.rule.fail().empty()) return;
  if (stage != "start" && isForStartOnly(name.c_str())) {
    throw ProfileError(site.at("syscall", index),
                       name + " is never allowed once an actor is ready; `start` may have it");
  }
  if (name == "ioctl") requireNamedIoctls(site, index);
}

std::vector<PolicyRule> compile(const RuleSite& site, const std::string& stage,
                                const std::vector<PolicyFd>& fds, Form form) {
  const policy::Rule& rule = site.rule;
  const char* what = form == Form::RULE ? "rule" : "narrow";
  if (rule.syscall_size() == 0) {
    throw ProfileError(site.where, std::string("a ") + what + " names a `syscall`");
  }
  if (rule.reason().empty()) {
    throw ProfileError(site.where, std::string("the ") + what + " for " + rule.syscall(0) +
                                       " has no `reason`; say who needs it, and for what");
  }
  if (form == Form::NARROW && !rule.fail().empty()) {
    throw ProfileError(site.at("fail"), "a narrow only takes away; `fail` belongs into a rule");
  }
  int error = rule.fail().empty() ? 0 : errorNumber(site);
  auto arguments = ConditionReader(site, stage, fds).read();
  size_t ways = 1;
  for (const PolicyArgument& argument : arguments) {
    ways *= argument.alternatives.size();
    if (ways > MAX_VERDICTS_PER_RULE) {
      throw ProfileError(site.at("syscall"), "the rule has more than 1024 combinations");
    }
  }

  std::vector<PolicyRule> rules;
  for (int i = 0; i < rule.syscall_size(); i++) {
    const std::string& name = rule.syscall(i);
    int number = seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, name.c_str());
    if (number < 0) {
      throw ProfileError(site.at("syscall", i), "x86_64 has no system call \"" + name +
                                                    "\"; names are as in the manual's section 2");
    }
    checkCall(site, i, stage, form);
    rules.push_back({stage,
                     site.where,
                     site.at("syscall", i),
                     name,
                     number,
                     arguments,
                     error,
                     rule.fail(),
                     rule.reason(),
                     {}});
  }
  return rules;
}

// What satisfies both; none when nothing does, or when seccomp cannot test it in one comparison.
enum class Meeting { ONE, NONE, UNTESTABLE };
Meeting meet(const Condition& a, const Condition& b, Condition& both) {
  if (a.test == Condition::AT_MOST && b.test == Condition::AT_MOST) {
    both = a.value <= b.value ? a : b;
    return Meeting::ONE;
  }
  if (a.test == Condition::AT_MOST) return meet(b, a, both);
  if (b.test == Condition::AT_MOST) {
    if (a.value > b.value) return Meeting::NONE;
    both = a;
    return (a.value | ~a.mask) <= b.value ? Meeting::ONE : Meeting::UNTESTABLE;
  }
  if (((a.value ^ b.value) & a.mask & b.mask) != 0) return Meeting::NONE;
  both = {a.argument, Condition::MASKED_EQUAL, a.mask | b.mask, a.value | b.value};
  return Meeting::ONE;
}

void narrowArgument(PolicyArgument& argument, const PolicyArgument& by, const PolicyRule& rule,
                    const PolicyRule& narrow) {
  Alternatives both;
  for (const Condition& a : argument.alternatives) {
    for (const Condition& b : by.alternatives) {
      Condition condition;
      Meeting meeting = meet(a, b, condition);
      if (meeting == Meeting::UNTESTABLE) {
        throw ProfileError(
            narrow.where,
            "bits and a size of one argument cannot be tested together: " + rule.syscallName +
                " has \"" + argument.text + "\" at " + describe(rule.where));
      }
      if (meeting == Meeting::ONE) both.push_back(condition);
    }
  }
  argument.alternatives = std::move(both);
  if (argument.text != by.text) argument.text += " and " + by.text;
  if (!argument.fds.empty() && !by.fds.empty()) {
    std::vector<std::string> names;
    for (const std::string& name : argument.fds) {
      if (std::count(by.fds.begin(), by.fds.end(), name) != 0) names.push_back(name);
    }
    argument.fds = std::move(names);
    argument.text = "= " + joined(argument.fds);
  } else {
    argument.fds.clear();
  }
}

}  // namespace

bool neverWhileServing(const std::string& syscall) {
  return isForStartOnly(syscall.c_str());
}

std::vector<PolicyRule> compileRule(const RuleSite& site, const std::string& stage,
                                    const std::vector<PolicyFd>& fds) {
  return compile(site, stage, fds, Form::RULE);
}

std::vector<PolicyRule> compileNarrow(const RuleSite& site, const std::string& stage,
                                      const std::vector<PolicyFd>& fds) {
  return compile(site, stage, fds, Form::NARROW);
}

PolicyRule narrowed(const PolicyRule& rule, const PolicyRule& by) {
  PolicyRule result = rule;
  result.narrowedBy.push_back(by.where);
  for (const PolicyArgument& condition : by.arguments) {
    auto same = std::find_if(result.arguments.begin(), result.arguments.end(),
                             [&](const PolicyArgument& a) { return a.index == condition.index; });
    if (same == result.arguments.end()) {
      result.arguments.push_back(condition);
    } else {
      narrowArgument(*same, condition, rule, by);
    }
  }
  size_t ways = 1;
  for (const PolicyArgument& argument : result.arguments)
    ways *= argument.alternatives.size();
  if (ways > MAX_VERDICTS_PER_RULE) {
    throw ProfileError(by.where, "the narrowed rule has more than 1024 combinations");
  }
  return result;
}

std::vector<Verdict> PolicyRule::verdicts() const {
  std::vector<Verdict> result{{syscall, {}, error}};
  for (const PolicyArgument& argument : arguments) {
    std::vector<Verdict> longer;
    for (const Verdict& verdict : result) {
      for (const Condition& condition : argument.alternatives) {
        longer.push_back(verdict);
        longer.back().conditions.push_back(condition);
      }
    }
    result = std::move(longer);
  }
  return result;
}

}  // namespace troupe::sandbox
