// troupe-policy: `troupe policy`, on the profiles this build was made from.
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/profile_source.h"
#include "sandbox/tool/policy_tool.h"
#include "sandbox/tool/tool_error.h"
#include "vmm/policy/built_in_profiles.h"
#include "vmm/policy/watch_commands.h"

namespace troupe {
namespace {

class BuiltInFiles final: public sandbox::ProfileFiles {
 public:
  std::optional<std::string> read(const std::string& path) const override {
    for (size_t i = 0; i < BUILT_IN_PROFILE_COUNT; i++) {
      if (path == BUILT_IN_PROFILES[i].path) return BUILT_IN_PROFILES[i].text;
    }
    return std::nullopt;
  }
};

// Every profile that is not only for including: "devices/blk/blk.profile" of the actor "blk".
std::vector<sandbox::CataloguedActor> actors() {
  std::map<std::string, std::string> sorted;
  for (size_t i = 0; i < BUILT_IN_PROFILE_COUNT; i++) {
    std::string text = BUILT_IN_PROFILES[i].text;
    const std::string key = "\nactor: \"";
    size_t begin = ("\n" + text).find(key);
    if (begin == std::string::npos) continue;
    begin += key.size() - 1;
    sorted[text.substr(begin, text.find('"', begin) - begin)] = BUILT_IN_PROFILES[i].path;
  }
  std::vector<sandbox::CataloguedActor> result;
  for (const auto& [name, path] : sorted)
    result.push_back({name, path});
  return result;
}

bool writeAll(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    ssize_t written = write(fd, text.data() + at, text.size() - at);
    if (written <= 0) return false;
    at += written;
  }
  return true;
}

// `troupe`, which lies beside this executable.
std::string troupe() {
  char path[4096];
  ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  std::string own(path, length > 0 ? length : 0);
  return own.substr(0, own.rfind('/') + 1) + "troupe";
}

sandbox::ToolResult answer(const sandbox::PolicyCatalogue& catalogue,
                           const std::vector<std::string>& words) {
  std::string command = words.empty() ? "" : words[0];
  if (command != "learn" && command != "coverage") return sandbox::policyTool(catalogue, words);
  try {
    std::vector<std::string> rest(words.begin() + 1, words.end());
    return command == "learn" ? learnCommand(catalogue, troupe(), rest)
                              : coverageCommand(catalogue, rest);
  } catch (const sandbox::ToolError& error) {
    return {2, "", "troupe policy: " + std::string(error.what()) + "\n"};
  }
}

int run(int count, char** arguments) {
  BuiltInFiles files;
  auto result = answer({files, actors()}, {arguments + (count > 0 ? 1 : 0), arguments + count});
  bool written = writeAll(STDOUT_FILENO, result.out) && writeAll(STDERR_FILENO, result.err);
  return written ? result.exit : 1;
}

}  // namespace
}  // namespace troupe

int main(int count, char** arguments) {
  try {
    return troupe::run(count, arguments);
  } catch (const std::exception& error) {
    fprintf(stderr, "troupe policy: TRP-int-001: %s\n", error.what());
    return 1;
  }
}
