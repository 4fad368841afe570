#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

namespace troupe {

// "[--OPTIONS] -- COMMAND…", taken apart.
struct CommandWords {
  std::map<std::string, std::string> values;  // of the options that take one
  std::set<std::string> flags;
  std::vector<std::string> command;
};

// `valued` and `plain`: the options there are, with their dashes. Throws ToolError.
CommandWords parseCommandWords(const std::vector<std::string>& words,
                               const std::set<std::string>& valued,
                               const std::set<std::string>& plain);

}  // namespace troupe
