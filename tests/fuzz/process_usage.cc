#include "tests/fuzz/process_usage.h"

#include <filesystem>
#include <fstream>
#include <string>

namespace troupe::fuzz {
namespace {

uint64_t entries(const std::string& folder) {
  uint64_t count = 0;
  for (auto& entry : std::filesystem::directory_iterator(folder)) {
    (void)entry;
    ++count;
  }
  return count;
}

// The number behind `key` in a file of "Key:  value" lines.
uint64_t field(const std::string& file, const std::string& key) {
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);)
    if (line.compare(0, key.size(), key) == 0) return std::stoull(line.substr(key.size()));
  return 0;
}

}  // namespace

Usage usageOf(pid_t pid) {
  std::string process = "/proc/" + std::to_string(pid);
  return Usage{entries(process + "/fd"), entries(process + "/task"),
               field(process + "/status", "RssAnon:")};
}

}  // namespace troupe::fuzz
