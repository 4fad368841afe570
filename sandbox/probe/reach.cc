#include "sandbox/probe/reach.h"

#include <stdlib.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace troupe::sandbox::probe {
namespace {

std::vector<std::string> linesOf(std::istream& stream) {
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);)
    lines.push_back(line);
  return lines;
}

std::string missing(const std::vector<std::string>& from, const std::vector<std::string>& in,
                    const char* sign, const char* ignored) {
  std::string text;
  for (const std::string& line : from) {
    if (ignored != nullptr && line.find(ignored) != std::string::npos) continue;
    if (std::find(in.begin(), in.end(), line) == in.end()) text += sign + line + "\n";
  }
  return text;
}

}  // namespace

std::string wordFor(const Report& report) {
  switch (report.outcome) {
    case Outcome::RETURNED:
      return report.value < 0 ? "refused" : "WORKED";
    case Outcome::KILLED:
      return "killed";
    case Outcome::DIED:
      return "died";
    case Outcome::HUNG:
      return "WAITED";
    case Outcome::UNREADY:
      break;
  }
  return "UNREADY";
}

void GroupLines::add(const std::string& group, const std::string& name, const Report& report) {
  auto found = std::find_if(groups.begin(), groups.end(),
                            [&](const Group& one) { return one.name == group; });
  if (found == groups.end()) found = groups.insert(groups.end(), Group{group, {}});
  found->members[wordFor(report)].push_back(name);
}

std::string GroupLines::text(const std::string& prefix) const {
  std::string text;
  for (const Group& group : groups) {
    std::string line = prefix + group.name + ":";
    // Where all went the same way, their number says it; otherwise killed ones are counted and
    // the rest is named.
    for (const auto& [word, names] : group.members) {
      bool counted = group.members.size() == 1 || word == "killed";
      std::vector<std::string> shown = names;
      if (counted) shown = {std::to_string(names.size())};
      for (size_t i = 0; i + 1 < shown.size(); i++)
        shown[i] += ",";
      text += wrapped(line + " " + word, shown);
    }
  }
  return text;
}

std::string wrapped(const std::string& heading, const std::vector<std::string>& words) {
  std::string text, line = heading;
  for (const std::string& word : words) {
    if (line.size() + 1 + word.size() > 100) {
      text += line + "\n";
      line = "   ";
    }
    line += " " + word;
  }
  return text + line + "\n";
}

std::string compareWithFile(const std::string& text, const char* path, const char* ignored) {
  if (const char* target = getenv("PROBE_WRITE")) {
    std::ofstream(target) << text;
    return "";
  }
  std::ifstream file(path);
  std::istringstream actual(text);
  auto wanted = linesOf(file), got = linesOf(actual);
  return missing(wanted, got, "  expected: ", ignored) +
         missing(got, wanted, "  found:    ", ignored);
}

}  // namespace troupe::sandbox::probe
