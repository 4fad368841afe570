#include "sandbox/tool/minijail_import.h"

#include <seccomp.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <map>
#include <set>
#include <stdexcept>
#include <vector>

#include "sandbox/rule_compiler.h"
#include "sandbox/words.h"

namespace troupe::sandbox {
namespace {

// Why a line is left out.
class NotSayable: public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A condition as the profile language writes it.
struct Atom {
  uint32_t index;
  enum { VALUE, FLAGS, AT_MOST, MASK } kind;
  uint64_t number;
  std::string word;

  auto key() const { return std::make_tuple(index, int(kind), number); }
};
using Conjunction = std::vector<Atom>;

struct ImportedRule {
  std::string call;
  Conjunction conditions;  // values of one argument may repeat: they are alternatives
  std::string fail;        // "" to allow
  int line;
};

std::string trimmed(const std::string& text) {
  size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t begin = 0, end;
  while ((end = text.find(separator, begin)) != std::string::npos) {
    parts.push_back(trimmed(text.substr(begin, end - begin)));
    begin = end + separator.size();
  }
  parts.push_back(trimmed(text.substr(begin)));
  return parts;
}

std::string hex(uint64_t value) {
  char text[24];
  snprintf(text, sizeof(text), "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

// Comments hold what somebody else wrote: one printable line.
std::string printable(std::string text) {
  for (char& c : text) {
    if (c < 0x20 || c >= 0x7f) c = '?';
  }
  return text.size() > 300 ? text.substr(0, 300) + "..." : text;
}

// The value of a minijail constant expression: names and numbers joined by '|', each perhaps
// complemented. `word` gets it in the profile's language.
uint64_t constant(const std::string& text, std::string& word) {
  uint64_t value = 0;
  bool asWritten = true;
  for (std::string part : split(text, "|")) {
    bool complemented = !part.empty() && part[0] == '~';
    if (complemented) part = trimmed(part.substr(1));
    bool octal =
        part.size() > 1 && part[0] == '0' && std::isdigit(static_cast<unsigned char>(part[1]));
    uint64_t one;
    try {
      one = octal ? std::stoull(part, nullptr, 8) : wordValue(part);
    } catch (const std::logic_error& error) {
      throw NotSayable(octal ? "\"" + part + "\" is not a number" : error.what());
    }
    asWritten = asWritten && !complemented && !octal;
    value |= complemented ? ~one : one;
  }
  word = asWritten ? text : hex(value);
  return value;
}

Atom atom(const std::string& call, const std::string& text) {
  if (text.size() < 4 || text.compare(0, 3, "arg") != 0 || text[3] < '0' || text[3] > '5') {
    throw NotSayable("\"" + text + "\" is not a condition on arg0 to arg5");
  }
  uint32_t index = text[3] - '0';
  std::string rest = trimmed(text.substr(4));
  size_t end = rest.find_first_of(" \t(~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
  if (end == std::string::npos) throw NotSayable("\"" + text + "\" compares with nothing");
  std::string op = trimmed(rest.substr(0, end));
  std::string operand = trimmed(rest.substr(end));
  if (operand.find('(') != std::string::npos) throw NotSayable("parentheses are not understood");
  std::string word;
  uint64_t number = constant(operand, word);
  bool ioctlNumber = call == "ioctl" && index == 1;
  if (ioctlNumber && op != "==") {
    throw NotSayable("ioctls are named one by one, and this is no \"==\"");
  }
  if (op == "==") return {index, Atom::VALUE, number, word};
  if (op == "in") return {index, Atom::FLAGS, number, word};
  if (op == "<=") return {index, Atom::AT_MOST, number, word};
  if (op == "<" && number > 0) return {index, Atom::AT_MOST, number - 1, hex(number - 1)};
  if (op == "&" && number != 0 && (number & (number - 1)) == 0) {
    return {index, Atom::MASK, number, word};
  }
  if (op == "&") throw NotSayable("any of several bits set is not one condition");
  throw NotSayable("the comparison \"" + op + "\" does not exist in profiles");
}

class Importer {
 public:
  explicit Importer(const std::string& path) : path(path) {}

  ImportResult import(const std::string& text) {
    int number = 0, first = 0;
    std::string pending;
    for (const std::string& raw : split(text, "\n")) {
      number++;
      std::string line = trimmed(raw.substr(0, raw.find('#')));
      if (pending.empty()) first = number;
      if (!line.empty() && line.back() == '\\') {
        pending += line.substr(0, line.size() - 1) + " ";
        continue;
      }
      line = trimmed(pending + line);
      pending.clear();
      if (!line.empty()) take(line, first);
    }
    return {render(), rules.size(), leftOut.size()};
  }

 private:
  void take(const std::string& line, int number) {
    size_t before = rules.size();
    try {
      parse(line, number);
    } catch (const NotSayable& reason) {
      rules.resize(before);  // all of a line or nothing
      leftOut.push_back("# " + printable(path) + ":" + std::to_string(number) +
                        ": not taken over: " + printable(line) + "\n#   " +
                        printable(reason.what()) + "\n");
    }
  }

  void parse(const std::string& line, int number) {
    if (line.compare(0, 8, "@default") == 0 || line.compare(0, 10, "@frequency") == 0) return;
    if (line[0] == '@') throw NotSayable("import the included file by itself");
    size_t colon = line.find(':');
    if (colon == std::string::npos) throw NotSayable("it is not of the form \"call: filter\"");
    std::string name = trimmed(line.substr(0, colon));
    std::string filter = trimmed(line.substr(colon + 1));
    size_t bracket = name.find('[');
    if (bracket != std::string::npos) {
      if (name.find("x86_64", bracket) == std::string::npos) return;  // of another machine
      name = trimmed(name.substr(0, bracket));
    }
    if (seccomp_syscall_resolve_name_arch(SCMP_ARCH_X86_64, name.c_str()) < 0) {
      throw NotSayable("x86_64 has no system call \"" + name + "\"");
    }
    if (name == "clone3") throw NotSayable("clone3 fails with ENOSYS in every profile");
    takeFilter(name, filter, number);
  }

  void takeFilter(const std::string& name, const std::string& filter, int number) {
    auto parts = split(filter, ";");
    if (parts.size() > 2) throw NotSayable("more than one \";\"");
    const std::string& condition = parts[0];
    static const std::set<std::string> ALLOWED{"1", "allow"};
    static const std::set<std::string> REFUSED{"0", "kill", "kill-process", "kill-thread", "trap"};
    if (parts.size() == 1 && REFUSED.count(condition) != 0) return;
    std::string action = parts.size() == 2 ? parts[1] : "";
    bool returns = condition.compare(0, 7, "return ") == 0;
    if (returns && parts.size() == 1) {
      add({name, {}, errorName(condition), number});
      return;
    }
    if (ALLOWED.count(condition) != 0) {
      if (name == "ioctl") throw NotSayable("ioctls are named one by one");
      add({name, {}, "", number});
    } else {
      addAlternatives(name, condition, number);
    }
    // What else does not meet the conditions is refused anyway, or fails.
    if (!action.empty() && REFUSED.count(action) == 0) {
      add({name, {}, errorName(action), number});
    }
  }

  void addAlternatives(const std::string& name, const std::string& condition, int number) {
    std::vector<Conjunction> alternatives;
    for (const std::string& alternative : split(condition, "||")) {
      Conjunction conjunction;
      for (const std::string& one : split(alternative, "&&"))
        conjunction.push_back(atom(name, one));
      for (size_t i = 0; i < conjunction.size(); i++) {
        for (size_t j = 0; j < i; j++) {
          if (conjunction[i].index == conjunction[j].index) {
            throw NotSayable("two conditions on one argument at once");
          }
        }
      }
      bool namesIoctl = std::any_of(conjunction.begin(), conjunction.end(),
                                    [](const Atom& a) { return a.index == 1; });
      if (name == "ioctl" && !namesIoctl) throw NotSayable("ioctls are named one by one");
      alternatives.push_back(std::move(conjunction));
    }
    mergeValues(alternatives);
    for (Conjunction& conjunction : alternatives)
      add({name, std::move(conjunction), "", number});
  }

  // "arg1 == A || arg1 == B" is one condition with two values.
  static void mergeValues(std::vector<Conjunction>& alternatives) {
    std::map<uint32_t, Conjunction> values;
    std::vector<Conjunction> kept;
    for (Conjunction& one : alternatives) {
      if (one.size() == 1 && one[0].kind == Atom::VALUE) {
        Conjunction& all = values[one[0].index];
        bool known = std::any_of(all.begin(), all.end(),
                                 [&](const Atom& a) { return a.number == one[0].number; });
        if (!known) all.push_back(one[0]);
      } else {
        kept.push_back(std::move(one));
      }
    }
    for (auto& [index, all] : values)
      kept.push_back(std::move(all));
    alternatives = std::move(kept);
  }

  static std::string errorName(const std::string& action) {
    static const std::map<std::string, std::string> NUMBERS{
        {"1", "EPERM"},   {"2", "ENOENT"},  {"9", "EBADF"},   {"13", "EACCES"},
        {"22", "EINVAL"}, {"25", "ENOTTY"}, {"38", "ENOSYS"}, {"95", "EOPNOTSUPP"}};
    if (action.compare(0, 7, "return ") != 0) {
      throw NotSayable("the action \"" + action + "\" does not exist in profiles");
    }
    std::string name = trimmed(action.substr(7));
    auto number = NUMBERS.find(name);
    if (number != NUMBERS.end()) return number->second;
    for (const auto& [key, known] : NUMBERS) {
      if (known == name) return name;
    }
    throw NotSayable("calls cannot fail with \"" + name + "\" in profiles");
  }

  void add(ImportedRule rule) {
    auto same = [&](const ImportedRule& other) {
      auto keys = [](const ImportedRule& r) {
        std::multiset<std::tuple<uint32_t, int, uint64_t>> all;
        for (const Atom& atom : r.conditions)
          all.insert(atom.key());
        return all;
      };
      return other.call == rule.call && other.fail == rule.fail && keys(other) == keys(rule);
    };
    if (std::none_of(rules.begin(), rules.end(), same)) rules.push_back(std::move(rule));
  }

  std::string ruleText(const ImportedRule& rule) const {
    std::string text = "  rule { syscall: \"" + rule.call + "\"";
    for (size_t i = 0; i < rule.conditions.size(); i++) {
      const Atom& atom = rule.conditions[i];
      bool goesOn = i > 0 && rule.conditions[i - 1].index == atom.index;
      if (!goesOn) text += " arg { index: " + std::to_string(atom.index);
      switch (atom.kind) {
        case Atom::VALUE:
          text += " value: \"" + atom.word + "\"";
          break;
        case Atom::FLAGS:
          text += " flags: \"" + atom.word + "\"";
          break;
        case Atom::AT_MOST:
          text += " at_most: \"" + atom.word + "\"";
          break;
        case Atom::MASK:
          text += " mask: \"" + atom.word + "\" value: \"" + atom.word + "\"";
          break;
      }
      bool last = i + 1 == rule.conditions.size() || rule.conditions[i + 1].index != atom.index;
      if (last) text += " }";
    }
    if (!rule.fail.empty()) text += " fail: \"" + rule.fail + "\"";
    return text + " reason: \"imported, line " + std::to_string(rule.line) + "\" }\n";
  }

  std::string actorName() const {
    std::string name = path.substr(path.find_last_of('/') + 1);
    name = name.substr(0, name.find('.')).substr(0, 32);
    for (char& c : name) {
      c = std::tolower(static_cast<unsigned char>(c));
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-') c = '_';
    }
    return name.empty() ? "imported" : name;
  }

  std::string render() const {
    std::string start, run, text;
    for (const ImportedRule& rule : rules) {
      bool early = rule.fail.empty() && neverWhileServing(rule.call);
      (early ? start : run) += ruleText(rule);
    }
    text = "# Imported from the minijail policy " + printable(path) +
           ". Still to be said: the fds and which rule is about\n"
           "# which, what only `start` needs, and the reasons.\n"
           "actor: \"" +
           actorName() + "\"\n";
    for (const std::string& comment : leftOut)
      text += comment;
    if (!start.empty()) text += "\nstart {\n" + start + "}\n";
    if (!run.empty()) text += "\nrun {\n" + run + "}\n";
    return text;
  }

  const std::string& path;
  std::vector<ImportedRule> rules;
  std::vector<std::string> leftOut;
};

}  // namespace

ImportResult importMinijail(const std::string& text, const std::string& path) {
  return Importer(path).import(text);
}

}  // namespace troupe::sandbox
