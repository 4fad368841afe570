// troupe-policy: `troupe policy`, on the profiles this build was made from; and, started by
// `troupe` under another name, the compiler of the profiles of --profile-dir.
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "sandbox/tool/policy_tool.h"
#include "sandbox/tool/tool_error.h"
#include "vmm/policy/catalogue.h"
#include "vmm/policy/compiler.h"
#include "vmm/policy/watch_commands.h"

namespace troupe {
namespace {

constexpr int NO_OUTPUT = 3;

bool writeAll(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    ssize_t written = write(fd, text.data() + at, text.size() - at);
    if (written < 0 && errno == EINTR) continue;
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
    return {2, "", "troupe: " + std::string(error.what()) + "\n"};
  }
}

int run(int count, char** arguments) {
  BuiltInFiles files;
  auto result =
      answer({files, builtInActors()}, {arguments + (count > 0 ? 1 : 0), arguments + count});
  if (!writeAll(STDOUT_FILENO, result.out)) {
    fprintf(stderr, "troupe: TRP-host-010: standard output cannot be written: %s\n",
            strerror(errno));
    return NO_OUTPUT;
  }
  return writeAll(STDERR_FILENO, result.err) ? result.exit : NO_OUTPUT;
}

}  // namespace
}  // namespace troupe

int main(int count, char** arguments) {
  if (count > 0 && std::string(arguments[0]) == "troupe-compiler") troupe::playCompiler();
  try {
    return troupe::run(count, arguments);
  } catch (const std::exception& error) {
    fprintf(stderr, "troupe: TRP-int-001: %s\n", error.what());
    return 1;
  }
}
