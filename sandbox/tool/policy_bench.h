#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/policy.h"
#include "sandbox/tool/policy_tool.h"
#include "tests/files/temporary_folder.h"

namespace troupe::sandbox::testing {

// Two actors, as if they were built in.
class MemoryFiles final: public ProfileFiles {
 public:
  explicit MemoryFiles(std::map<std::string, std::string> texts) : texts(std::move(texts)) {}
  std::optional<std::string> read(const std::string& path) const override {
    auto found = texts.find(path);
    return found == texts.end() ? std::nullopt : std::make_optional(found->second);
  }

 private:
  std::map<std::string, std::string> texts;
};

inline constexpr char SHARED[] = R"(run {
  rule { syscall: "brk" reason: "the heap" }
  rule { syscall: "mmap" arg { index: 2 flags: "PROT_READ|PROT_WRITE" } reason: "blocks" }
}
)";

inline constexpr char TAPE[] = R"(actor: "tape"
include: "shared.profile"
fd { name: "reel" number: 16 kind: FILE }
fd { name: "kick" number: 20 count: 4 kind: EVENTFD from: PLACED optional: true }
start {
  rule { syscall: "fstat" fd: "reel" reason: "its size" }
}
run {
  narrow { syscall: "mmap" arg { index: 3 value: "MAP_PRIVATE|MAP_ANONYMOUS" } reason: "no file" }
  rule { syscall: "pread64" fd: "reel" arg { index: 2 at_most: "512" } reason: "reads" }
  rule { syscall: "read" fd: "kick" reason: "notifications" }
  rule { syscall: "uname" fail: "ENOSYS" reason: "a library asks" }
}
thread {
  name: "spool"
  rule { syscall: "exit" reason: "its end" }
}
limit { resource: "AS" value: 65536 }
budget { filter: "run" syscalls: 4 unconditional: 1 }
budget { filter: "thread:spool" syscalls: 1 unconditional: 1 }
)";

inline constexpr char DISC[] = R"(actor: "disc"
include: "shared.profile"
fd { name: "reel" number: 17 kind: FILE }
fd { name: "arm" number: 18 kind: PIPE }
run {
  rule { syscall: "pread64" fd: "reel" arg { index: 2 at_most: "1024" } reason: "reads" }
  rule { syscall: "write" fd: "arm" reason: "moves" }
}
)";

inline ToolResult tool(const std::vector<std::string>& words) {
  static const auto* const FILES =
      new MemoryFiles({{"shared.profile", SHARED}, {"tape.profile", TAPE}, {"disc.profile", DISC}});
  return policyTool({*FILES, {{"disc", "disc.profile"}, {"tape", "tape.profile"}}}, words);
}

// What it prints when all is well.
inline std::string out(const std::vector<std::string>& words) {
  ToolResult result = tool(words);
  EXPECT_EQ(0, result.exit) << result.err;
  EXPECT_EQ("", result.err);
  return result.out;
}

// And when it is not.
inline std::string err(const std::vector<std::string>& words) {
  ToolResult result = tool(words);
  EXPECT_EQ(2, result.exit);
  return result.err;
}

// A file of its own, gone with the test.
class File {
 public:
  explicit File(const std::string& text, const std::string& name = "a.profile") {
    root.write(name, text);
    path = root.at(name);
  }
  std::string path;

 private:
  troupe::testing::TemporaryFolder root;
};

inline std::string without(std::string text, const std::string& part) {
  for (size_t at; (at = text.find(part)) != std::string::npos;)
    text.erase(at, part.size());
  return text;
}

}  // namespace troupe::sandbox::testing
