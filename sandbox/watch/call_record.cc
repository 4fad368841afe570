#include "sandbox/watch/call_record.h"

#include <cstdio>
#include <sstream>

namespace troupe::sandbox {
namespace {

constexpr char HEADER[] = "troupe-calls 1\n";
constexpr size_t MOST_STACK = 64;

std::string escaped(const std::string& text) {
  std::string result;
  for (unsigned char c : text) {
    char hex[4];
    snprintf(hex, sizeof(hex), c <= ' ' || c == '%' || c >= 0x7f ? "%%%02x" : "%c", c);
    result += hex;
  }
  return result.empty() ? "%" : result;
}

std::string unescaped(const std::string& text) {
  if (text == "%") return "";
  std::string result;
  for (size_t i = 0; i < text.size(); i++) {
    if (text[i] != '%' || i + 2 >= text.size()) {
      result += text[i];
      continue;
    }
    result += char(strtoul(text.substr(i + 1, 2).c_str(), nullptr, 16));
    i += 2;
  }
  return result;
}

bool readLine(const std::string& line, CallRecord& record) {
  std::istringstream words(line);
  std::string actor, program, stage, thread;
  words >> actor >> program >> stage >> thread >> record.syscall;
  words >> std::hex;
  for (uint64_t& argument : record.arguments)
    words >> argument;
  words >> record.count;
  if (!words || (thread != "main" && thread != "other")) return false;
  record.actor = unescaped(actor);
  record.program = unescaped(program);
  record.stage = unescaped(stage);
  record.mainThread = thread == "main";
  for (uint64_t address; record.stack.size() < MOST_STACK && words >> address;)
    record.stack.push_back(address);
  return true;
}

}  // namespace

std::string recordHeader() {
  return HEADER;
}

std::string recordLine(const CallRecord& record) {
  std::ostringstream line;
  line << escaped(record.actor) << ' ' << escaped(record.program) << ' ' << escaped(record.stage)
       << (record.mainThread ? " main " : " other ") << record.syscall << std::hex;
  for (uint64_t argument : record.arguments)
    line << ' ' << argument;
  line << ' ' << record.count;
  for (uint64_t address : record.stack)
    line << ' ' << address;
  line << '\n';
  return line.str();
}

bool readRecords(const std::string& text, std::vector<CallRecord>& records) {
  const std::string header = HEADER;
  if (text.compare(0, header.size(), header) != 0) return false;
  for (size_t begin = header.size(); begin < text.size();) {
    size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    CallRecord record;
    if (readLine(text.substr(begin, end - begin), record)) records.push_back(std::move(record));
    begin = end + 1;
  }
  return true;
}

}  // namespace troupe::sandbox
