#include "sandbox/tool/learned_rule.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "sandbox/call_shape.h"
#include "sandbox/constants.h"
#include "sandbox/words.h"

namespace troupe::sandbox {
namespace {

constexpr size_t WIDTH = 140;
// Of an argument with more than these nothing is pinned but, of flags, which bits they have.
constexpr size_t MOST_VALUES = 12;
constexpr size_t MOST_SITES = 2;

bool isThread(const std::string& place) {
  return place.compare(0, 7, "thread:") == 0;
}

int stageOrder(const std::string& place) {
  return place == "run" ? 3 : place == "ready" ? 2 : place == "start" ? 1 : 0;
}

// Whether a rule in `outer` holds in `inner` too.
bool reaches(const std::string& outer, const std::string& inner) {
  if (outer == inner) return true;
  // What a thread may do, `start` allows as well.
  if (isThread(outer)) return inner == "start";
  return !isThread(inner) && stageOrder(outer) >= stageOrder(inner);
}

std::string words(const std::string& syscall, uint32_t index, uint64_t value) {
  const CallShape& shape = callShape(syscall.c_str());
  std::string text = constantWords(value, wordsOf(shape, index));
  try {
    if (wordValue(text) == value) return text;
  } catch (const std::invalid_argument&) {
    // The number then.
  }
  char number[24];
  snprintf(number, sizeof(number), "0x%llx", static_cast<unsigned long long>(value));
  return number;
}

bool isFlags(const std::string& syscall, uint32_t index) {
  return wordsOf(callShape(syscall.c_str()), index)[0] != '=';
}

// What an argument with this value is. An fd that is closed at the end of `start` may share its
// number with a later one: then it is what is used, and the later one what is spoken of.
const PolicyFd* fdOf(const Policy& policy, const std::string& place, uint32_t index,
                     uint64_t number) {
  const PolicyFd* found = nullptr;
  for (const PolicyFd& fd : policy.fds) {
    if (number < fd.number || number - fd.number >= fd.count) continue;
    if (fd.closed && place != "start") continue;
    if (found == nullptr || fd.closed == (index == 0)) found = &fd;
  }
  return found;
}

bool contains(const std::vector<std::string>& outer, const std::vector<std::string>& inner) {
  if (outer.empty()) return true;
  return !inner.empty() && std::includes(outer.begin(), outer.end(), inner.begin(), inner.end());
}

bool contains(const std::set<uint64_t>& outer, const std::set<uint64_t>& inner) {
  if (outer.empty()) return true;
  return !inner.empty() && std::includes(outer.begin(), outer.end(), inner.begin(), inner.end());
}

bool contains(const LearnedRule& outer, const LearnedRule& inner) {
  if (outer.syscall != inner.syscall || !reaches(outer.place, inner.place)) return false;
  for (uint32_t i = 0; i < 6; i++) {
    if (!contains(outer.fds[i], inner.fds[i]) || !contains(outer.values[i], inner.values[i]))
      return false;
    bool sized =
        outer.atMost[i] == 0 || (inner.atMost[i] != 0 && inner.atMost[i] <= outer.atMost[i]);
    if (!sized) return false;
  }
  return true;
}

void addSeen(LearnedRule& rule, const LearnedRule& more) {
  rule.count += more.count;
  rule.byChance = rule.byChance || more.byChance;
  rule.threads.insert(more.threads.begin(), more.threads.end());
  for (const auto& [site, count] : more.sites)
    rule.sites[site] += count;
}

bool sameBut(const LearnedRule& a, const LearnedRule& b, uint32_t index) {
  if (a.place != b.place || a.syscall != b.syscall) return false;
  for (uint32_t i = 0; i < 6; i++) {
    if (i == index) continue;
    if (a.fds[i] != b.fds[i] || a.values[i] != b.values[i] || a.atMost[i] != b.atMost[i])
      return false;
  }
  // One of the two may be about anything there: that is containment, and done before.
  return a.fds[index].empty() == b.fds[index].empty() &&
         a.values[index].empty() == b.values[index].empty();
}

bool sameSites(const LearnedRule& a, const LearnedRule& b) {
  return a.sites.size() == b.sites.size() &&
         std::equal(a.sites.begin(), a.sites.end(), b.sites.begin(),
                    [](const auto& x, const auto& y) { return x.first == y.first; });
}

void joinArgument(LearnedRule& rule, const LearnedRule& more, uint32_t index) {
  auto& fds = rule.fds[index];
  fds.insert(fds.end(), more.fds[index].begin(), more.fds[index].end());
  std::sort(fds.begin(), fds.end());
  fds.erase(std::unique(fds.begin(), fds.end()), fds.end());
  rule.values[index].insert(more.values[index].begin(), more.values[index].end());
  rule.atMost[index] = std::max(rule.atMost[index], more.atMost[index]);
  addSeen(rule, more);
}

void dropContained(std::vector<LearnedRule>& rules) {
  std::vector<bool> dropped(rules.size());
  for (size_t i = 0; i < rules.size(); i++) {
    for (size_t j = 0; j < rules.size() && !dropped[i]; j++) {
      if (i == j || dropped[j] || !contains(rules[j], rules[i])) continue;
      if (!isThread(rules[j].place)) addSeen(rules[j], rules[i]);
      dropped[i] = true;
    }
  }
  std::vector<LearnedRule> kept;
  for (size_t i = 0; i < rules.size(); i++) {
    if (!dropped[i]) kept.push_back(std::move(rules[i]));
  }
  rules = std::move(kept);
}

void joinOverArgument(std::vector<LearnedRule>& rules, uint32_t index) {
  std::vector<LearnedRule> kept;
  for (LearnedRule& rule : rules) {
    auto same = std::find_if(kept.begin(), kept.end(), [&](const LearnedRule& other) {
      return sameBut(other, rule, index) && sameSites(other, rule);
    });
    if (same == kept.end()) {
      kept.push_back(std::move(rule));
    } else {
      joinArgument(*same, rule, index);
    }
  }
  rules = std::move(kept);
}

// What a profile's text can hold between its quotes.
std::string plain(const std::string& text) {
  std::string result;
  for (char c : text)
    result += c >= ' ' && c < 0x7f && c != '"' && c != '\\' ? c : '?';
  return result;
}

std::string reasonOf(const LearnedRule& rule) {
  std::string text = std::to_string(rule.count) + (rule.count == 1 ? " call" : " calls");
  for (const std::string& thread : rule.threads)
    text += ", " + thread;
  if (rule.byChance) text += ", and more by chance";
  std::vector<std::pair<uint64_t, std::string>> sites;
  for (const auto& [site, count] : rule.sites) {
    if (!site.empty()) sites.emplace_back(count, site);
  }
  std::stable_sort(sites.begin(), sites.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  for (size_t i = 0; i < sites.size() && i < MOST_SITES; i++)
    text += (i == 0 ? ": " : "; ") + plain(sites[i].second);
  if (sites.size() > MOST_SITES) text += "; " + std::to_string(sites.size() - MOST_SITES) + " more";
  return text;
}

void addConditions(const LearnedRule& rule, std::vector<std::string>& parts) {
  for (uint32_t i = 0; i < 6; i++) {
    std::string condition;
    for (const std::string& fd : rule.fds[i])
      condition += " fd: \"" + fd + "\"";
    if (i == 0 && !condition.empty()) {
      parts.push_back(condition.substr(1));
      continue;
    }
    const auto& values = rule.values[i];
    if (values.size() <= MOST_VALUES || rule.syscall == "ioctl") {
      for (uint64_t value : values)
        condition += " value: \"" + words(rule.syscall, i, value) + "\"";
    } else if (isFlags(rule.syscall, i)) {
      uint64_t all = 0;
      for (uint64_t value : values)
        all |= value;
      condition = " flags: \"" + words(rule.syscall, i, all) + "\"";
    }
    if (rule.atMost[i] != 0) condition = " at_most: \"" + std::to_string(rule.atMost[i]) + "\"";
    if (condition.empty()) continue;
    parts.push_back("arg { index: " + std::to_string(i) + condition + " }");
  }
}

uint64_t roundedUp(uint64_t size) {
  uint64_t power = 1;
  while (power < size && power < uint64_t{1} << 62)
    power *= 2;
  return power;
}

// Sizes the kernel or the specification bounds anyway, so that a pinned one breaks nobody.
bool hasSmallSize(const LearnedRule& rule, const std::string& kind, uint32_t index) {
  if (rule.syscall == "getrandom") return index == 1;
  bool moves = rule.syscall == "read" || rule.syscall == "write";
  return moves && index == 2 && (kind == "eventfd" || kind == "timerfd" || kind == "signalfd");
}

// One greatest size for a call: two would say less, for more words.
void shareSizes(std::vector<LearnedRule>& rules) {
  for (LearnedRule& rule : rules) {
    for (const LearnedRule& other : rules) {
      for (uint32_t i = 0; i < 6; i++) {
        bool both = other.syscall == rule.syscall && rule.atMost[i] != 0;
        if (both) rule.atMost[i] = std::max(rule.atMost[i], other.atMost[i]);
      }
    }
  }
}

}  // namespace

std::string LearnedRule::text() const {
  std::vector<std::string> parts{"syscall: \"" + syscall + "\""};
  addConditions(*this, parts);
  parts.push_back("reason: \"" + reasonOf(*this) + "\"");
  std::string line = "  rule {", lines = "  rule {\n";
  for (const std::string& part : parts) {
    line += " " + part;
    lines += "    " + part + "\n";
  }
  line += " }\n";
  return line.size() <= WIDTH + 1 ? line : lines + "  }\n";
}

LearnedRule ruleFor(const Policy& policy, const CallRecord& record, const std::string& syscall,
                    const std::string& site) {
  LearnedRule rule;
  rule.place = record.stage;
  rule.syscall = syscall;
  rule.count = record.count;
  rule.threads = {isThread(record.stage) ? "thread " + record.stage.substr(7)
                  : record.mainThread    ? "main thread"
                                         : "a new thread"};
  rule.sites[site] = record.count;
  // Numbers on the way to their places are no fds of the profile yet, and whoever closes one holds
  // it.
  bool pinsFds = syscall != "close" && syscall != "dup3";
  // Which of its own fds a process watches, and when it ceases to, is its affair, and often chance.
  bool pinsFirstAlone = syscall == "epoll_ctl";
  const char* letters = callShape(syscall.c_str()).arguments;
  std::string kind;
  for (uint32_t i = 0; i < (pinsFirstAlone ? 1 : 6) && letters[i] != 0; i++) {
    uint64_t value = record.arguments[i];
    if (letters[i] == 'f' && pinsFds) {
      const PolicyFd* fd = fdOf(policy, record.stage, i, value);
      if (fd != nullptr) rule.fds[i] = {fd->name};
      if (fd != nullptr && i == 0) kind = fd->kind;
    } else if (letters[i] == 'W') {
      rule.values[i] = {value};
    } else if (hasSmallSize(rule, kind, i)) {
      rule.atMost[i] = roundedUp(value);
    }
  }
  return rule;
}

std::vector<LearnedRule> joined(std::vector<LearnedRule> rules) {
  shareSizes(rules);
  // The latest stage first, so that what is seen earlier too is counted there.
  std::stable_sort(rules.begin(), rules.end(), [](const LearnedRule& a, const LearnedRule& b) {
    return stageOrder(a.place) > stageOrder(b.place);
  });
  dropContained(rules);
  for (uint32_t i = 0; i < 6; i++)
    joinOverArgument(rules, i);
  dropContained(rules);
  std::stable_sort(rules.begin(), rules.end(), [](const LearnedRule& a, const LearnedRule& b) {
    return a.syscall < b.syscall;
  });
  return rules;
}

}  // namespace troupe::sandbox
