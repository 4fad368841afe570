#include "sandbox/probe/reach.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <tuple>

namespace troupe::sandbox::probe {
namespace {

std::vector<std::string> linesOf(std::istream& stream) {
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);)
    lines.push_back(line);
  return lines;
}

struct Version {
  unsigned major = 0, minor = 0;
  bool operator<(const Version& other) const {
    return std::tie(major, minor) < std::tie(other.major, other.minor);
  }
};

Version versionIn(const std::string& text) {
  Version version;
  sscanf(text.c_str(), "%u.%u", &version.major, &version.minor);
  return version;
}

// A line of a table, without its mark.
struct Line {
  std::string text;
  bool marked = false;
  bool holds = true;  // for the kernel at hand
};

Line parse(const std::string& line, const std::string& kernel) {
  for (const char* mark : {" [since ", " [before "}) {
    size_t at = line.rfind(mark);
    if (at == std::string::npos || line.back() != ']') continue;
    bool older = versionIn(kernel) < versionIn(line.substr(at + strlen(mark)));
    return {line.substr(0, at), true, older == (mark[2] == 'b')};
  }
  return {line};
}

std::string missing(const std::vector<std::string>& from, const std::vector<std::string>& in,
                    const char* sign) {
  std::string text;
  for (const std::string& line : from) {
    if (std::find(in.begin(), in.end(), line) == in.end()) text += sign + line + "\n";
  }
  return text;
}

std::vector<std::string> linesOf(const std::string& path) {
  std::ifstream file(path);
  return linesOf(file);
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

std::string compareLines(const std::vector<std::string>& wanted,
                         const std::vector<std::string>& found, const std::string& kernel) {
  std::vector<std::string> here;
  for (const std::string& one : wanted) {
    Line line = parse(one, kernel);
    if (line.holds) here.push_back(line.text);
  }
  return missing(here, found, "  expected: ") + missing(found, here, "  found:    ");
}

std::vector<std::string> updatedLines(const std::vector<std::string>& old,
                                      const std::vector<std::string>& found,
                                      const std::string& kernel) {
  std::vector<std::string> lines = found;
  size_t after = 0;  // where a line that holds elsewhere stands: behind what it followed
  for (const std::string& one : old) {
    Line line = parse(one, kernel);
    auto same = std::find(lines.begin(), lines.end(), line.text);
    if (!line.holds) {
      lines.insert(lines.begin() + after++, one);
    } else if (same != lines.end()) {
      after = same - lines.begin() + 1;
      if (line.marked) *same = one;
    }
  }
  return lines;
}

std::string compareWithFile(const std::string& text, const char* path) {
  std::istringstream stream(text);
  std::vector<std::string> found = linesOf(stream), wanted = linesOf(path);
  utsname machine;
  uname(&machine);
  const char* target = getenv("PROBE_WRITE");
  if (target == nullptr) return compareLines(wanted, found, machine.release);
  std::ofstream file(target);
  for (const std::string& line : updatedLines(wanted, found, machine.release))
    file << line << "\n";
  return "";
}

}  // namespace troupe::sandbox::probe
