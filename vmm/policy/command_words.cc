#include "vmm/policy/command_words.h"

#include "sandbox/tool/tool_error.h"

namespace troupe {
namespace {

using sandbox::quoted;
using sandbox::ToolError;

std::string list(const std::set<std::string>& a, const std::set<std::string>& b) {
  std::string all;
  for (const auto* names : {&a, &b}) {
    for (const std::string& name : *names)
      all += (all.empty() ? "" : ", ") + name;
  }
  return all;
}

}  // namespace

CommandWords parseCommandWords(const std::vector<std::string>& words,
                               const std::set<std::string>& valued,
                               const std::set<std::string>& plain) {
  CommandWords result;
  for (size_t i = 0; i < words.size(); i++) {
    const std::string& word = words[i];
    if (word == "--") {
      result.command.assign(words.begin() + i + 1, words.end());
      return result;
    }
    size_t equals = word.find('=');
    std::string name = word.substr(0, equals);
    if (valued.count(name) != 0) {
      if (equals == std::string::npos && i + 1 == words.size()) {
        throw ToolError("TRP-cfg-003", name + " needs a value");
      }
      std::string value = equals == std::string::npos ? words[++i] : word.substr(equals + 1);
      if (!result.values.emplace(name, value).second) {
        throw ToolError("TRP-cfg-005", name + " is given twice");
      }
    } else if (plain.count(word) != 0) {
      result.flags.insert(word);
    } else if (word.compare(0, 1, "-") == 0) {
      throw ToolError("TRP-cfg-002",
                      "there is no option " + quoted(word) + "; there are " + list(valued, plain));
    } else {
      throw ToolError("TRP-cfg-004", "the command to run stands after \"--\"; " + quoted(word) +
                                         " stands before it");
    }
  }
  return result;
}

}  // namespace troupe
