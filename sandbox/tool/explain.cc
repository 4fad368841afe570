#include "sandbox/tool/explain.h"

#include <seccomp.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <stdexcept>

#include "sandbox/rule_compiler.h"
#include "sandbox/tool/call_text.h"
#include "sandbox/words.h"

namespace troupe::sandbox {
namespace {

constexpr int LAST_SYSCALL = 600;

RuleMatch match(const PolicyRule& rule, const std::vector<GivenArgument>& arguments) {
  RuleMatch result{&rule, RuleMatch::YES, {}};
  for (const PolicyArgument& condition : rule.arguments) {
    if (condition.index >= arguments.size() || !arguments[condition.index].known) {
      if (result.meets == RuleMatch::YES) result.meets = RuleMatch::PERHAPS;
      continue;
    }
    uint64_t value = arguments[condition.index].value;
    bool holds = std::any_of(condition.alternatives.begin(), condition.alternatives.end(),
                             [&](const Condition& c) { return c.holds(value); });
    if (holds) continue;
    result.meets = RuleMatch::NO;
    result.failing.push_back(condition.index);
  }
  return result;
}

std::vector<std::string> syscallNames() {
  std::vector<std::string> names;
  for (int number = 0; number < LAST_SYSCALL; number++) {
    char* name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, number);
    if (name == nullptr) continue;
    names.push_back(name);
    free(name);
  }
  return names;
}

bool isNumber(const std::string& text) {
  return !text.empty() && std::isdigit(static_cast<unsigned char>(text[0]));
}

// "kick[3]" of fd "kick"; none when `text` is not this fd.
std::optional<uint64_t> fdNumber(const PolicyFd& fd, const std::string& text) {
  if (text == fd.name) return fd.number;
  if (text.compare(0, fd.name.size() + 1, fd.name + "[") != 0 || text.back() != ']') {
    return std::nullopt;
  }
  std::string digits = text.substr(fd.name.size() + 1, text.size() - fd.name.size() - 2);
  bool sound =
      !digits.empty() && digits.size() < 6 &&
      std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return isdigit(c); });
  if (!sound || std::stoul(digits) >= fd.count) {
    throw std::invalid_argument("fd \"" + fd.name + "\" has the indices 0 to " +
                                std::to_string(fd.count - 1) + ", not \"" + digits + "\"");
  }
  return fd.number + std::stoul(digits);
}

std::string callLine(const std::string& name, const std::vector<GivenArgument>& arguments) {
  std::string text;
  for (size_t i = 0; i < arguments.size(); i++) {
    text += (i == 0 ? "" : ", ") + argumentName(name, i) + " = " + arguments[i].text;
    std::string number = std::to_string(arguments[i].value);
    if (arguments[i].known && number != arguments[i].text) text += " (" + number + ")";
  }
  return name + "(" + text + ")";
}

std::string ruleLine(const PolicyRule& rule) {
  return placeText(rule.where) + ": " + callText(rule) + " " + conditionsText(rule) + "  # " +
         reasonText(rule);
}

std::vector<const RuleMatch*> select(const Explanation& explanation, RuleMatch::Meets meets) {
  std::vector<const RuleMatch*> result;
  for (const RuleMatch& match : explanation.matches) {
    if (match.meets == meets) result.push_back(&match);
  }
  return result;
}

// The rule that would let the call through, to be copied into a profile.
std::string suggestion(const Policy& policy, const std::string& stage, const std::string& name,
                       const std::vector<GivenArgument>& arguments) {
  std::string text = "rule { syscall: \"" + name + "\"";
  for (size_t i = 0; i < arguments.size(); i++) {
    if (!arguments[i].known) continue;
    std::string word = arguments[i].text;
    std::string base = word.substr(0, word.find('['));
    bool isFd = std::any_of(policy.fds.begin(), policy.fds.end(),
                            [&](const PolicyFd& fd) { return fd.name == base; });
    if (word[0] == '-') word = std::to_string(arguments[i].value);
    std::string index = std::to_string(i);
    if (isFd && i == 0) {
      text += " fd: \"" + base + "\"";
    } else if (isFd) {
      text += " arg { index: " + index + " fd: \"" + base + "\" }";
    } else {
      text += " arg { index: " + index + " value: \"" + word + "\" }";
    }
  }
  text += " reason: \"...\" }";
  if (stage.compare(0, 7, "thread:") == 0) {
    return "thread { name: \"" + stage.substr(7) + "\" " + text + " }";
  }
  return stage + " { " + text + " }";
}

std::string whereElse(const Policy& policy, const std::string& stage, int syscall,
                      const std::vector<GivenArgument>& arguments) {
  std::string text;
  for (const std::string& other : stagesOf(policy)) {
    if (other == stage) continue;
    Explanation explanation = explainCall(*filterOf(policy, other), syscall, arguments);
    if (explanation.answer == Explanation::ALLOWED) text += (text.empty() ? "" : ", ") + other;
  }
  return text.empty() ? "" : "  allowed in: " + text + "\n";
}

std::string refusal(const Policy& policy, const std::string& stage, const std::string& name,
                    int syscall, const std::vector<GivenArgument>& arguments,
                    const Explanation& explanation) {
  std::string text;
  if (explanation.matches.empty()) text += "  no rule of " + stage + " names " + name + "\n";
  for (const RuleMatch& match : explanation.matches) {
    text += "  not by " + ruleLine(*match.rule) + "\n";
    for (const PolicyArgument& argument : match.rule->arguments) {
      if (std::count(match.failing.begin(), match.failing.end(), argument.index) == 0) continue;
      text += "      " + argumentName(name, argument.index) + " is " +
              arguments[argument.index].text + ", the rule wants it " + argument.text + "\n";
    }
  }
  text += whereElse(policy, stage, syscall, arguments);
  if (name == "clone3" || (stage != "start" && neverWhileServing(name))) {
    return text + "  no profile may allow it" + (name == "clone3" ? "" : " once its actor serves") +
           "\n";
  }
  return text + "  this would allow it:\n      " + suggestion(policy, stage, name, arguments) +
         "\n";
}

}  // namespace

Explanation explainCall(const PolicyFilter& filter, int syscall,
                        const std::vector<GivenArgument>& arguments) {
  Explanation result{Explanation::KILLED, 0, {}};
  bool allowed = false, perhapsAllowed = false, perhapsFails = false;
  int error = 0;
  for (const PolicyRule& rule : filter.rules) {
    if (rule.syscall != syscall) continue;
    RuleMatch found = match(rule, arguments);
    result.matches.push_back(found);
    if (found.meets == RuleMatch::NO) continue;
    bool sure = found.meets == RuleMatch::YES;
    if (rule.error == 0) {
      (sure ? allowed : perhapsAllowed) = true;
    } else if (!sure) {
      perhapsFails = true;
    } else if (error == 0 || rule.error < error) {
      error = rule.error;  // of several, the filter answers with the smallest
    }
  }
  if (allowed) {
    result.answer = Explanation::ALLOWED;
  } else if (perhapsAllowed || (perhapsFails && error == 0)) {
    result.answer = Explanation::DEPENDS;
  } else if (error != 0) {
    result.answer = Explanation::FAILS;
    result.error = error;
  }
  return result;
}

GivenArgument parseArgument(const Policy& policy, const std::string& text) {
  if (text == "_") return {false, 0, "anything"};
  for (const PolicyFd& fd : policy.fds) {
    if (auto number = fdNumber(fd, text)) return {true, *number, text};
  }
  if (text.size() > 1 && text[0] == '-' && isNumber(text.substr(1))) {
    return {true, ~wordValue(text.substr(1)) + 1, text};
  }
  try {
    return {true, wordValue(text), text};
  } catch (const std::invalid_argument& error) {
    std::vector<std::string> names;
    for (const PolicyFd& fd : policy.fds)
      names.push_back(fd.name);
    throw std::invalid_argument(std::string(error.what()) + ", and no fd of this name" +
                                didYouMean(text, names));
  }
}

int parseSyscall(const std::string& text, std::string& name) {
  int number = -1;
  if (isNumber(text)) {
    number = int(std::min<uint64_t>(wordValue(text), LAST_SYSCALL));
    char* resolved = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, number);
    name = resolved == nullptr ? "" : resolved;
    free(resolved);
    if (resolved == nullptr) {
      throw std::invalid_argument("x86_64 has no system call of the number " + text);
    }
    return number;
  }
  number = seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, text.c_str());
  if (number < 0) {
    throw std::invalid_argument("x86_64 has no system call \"" + text + "\"" +
                                didYouMean(text, syscallNames()));
  }
  name = text;
  return number;
}

std::string explainText(const Policy& policy, const std::string& stage, const std::string& name,
                        int syscall, const std::vector<GivenArgument>& arguments) {
  Explanation explanation = explainCall(*filterOf(policy, stage), syscall, arguments);
  std::string text = policy.actor + ", " + stage + ": " + callLine(name, arguments) + ": ";
  switch (explanation.answer) {
    case Explanation::ALLOWED:
      text += "allowed\n";
      for (const RuleMatch* match : select(explanation, RuleMatch::YES)) {
        if (match->rule->error == 0) text += "  by " + ruleLine(*match->rule) + "\n";
      }
      return text;
    case Explanation::FAILS:
      text += "not made; it ";
      for (const RuleMatch* match : select(explanation, RuleMatch::YES)) {
        if (match->rule->error != explanation.error) continue;
        return text + "fails with " + match->rule->fail + "\n  by " + ruleLine(*match->rule) + "\n";
      }
      return text;
    case Explanation::DEPENDS:
      text += "allowed when the other arguments meet one of\n";
      for (const RuleMatch* match : select(explanation, RuleMatch::PERHAPS))
        text += "  " + ruleLine(*match->rule) + "\n";
      return text;
    case Explanation::KILLED:
      return text + "refused, kills the process\n" +
             refusal(policy, stage, name, syscall, arguments, explanation);
  }
  return text;
}

}  // namespace troupe::sandbox
