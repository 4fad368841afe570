#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::sandbox {

// Calls that are alike in all but the addresses they hand over; a record has 1 for every address.
struct CallRecord {
  std::string actor;    // as its profile says
  std::string program;  // the path of its executable
  std::string stage;    // whose filter stopped it: "start", "thread:queue"
  bool mainThread = false;
  int syscall = 0;
  uint64_t arguments[6] = {};
  uint64_t count = 0;
  // Where it was made, as addresses in the executable's file: the instruction, then whatever on the
  // stack above it points into the executable's code, innermost first.
  std::vector<uint64_t> stack;
};

// Records as text, a line each. The actor chose the numbers in them, and nothing else.
std::string recordHeader();
std::string recordLine(const CallRecord& record);

// The records in `text`; lines that are none (a file that was cut off) are left out. None at all
// when `text` does not begin with the header.
bool readRecords(const std::string& text, std::vector<CallRecord>& records);

}  // namespace troupe::sandbox
