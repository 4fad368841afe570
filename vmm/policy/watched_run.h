#pragma once

#include <string>
#include <vector>

#include "sandbox/watch/call_record.h"

namespace troupe {

// A folder for the records of calls, gone with this object.
class RecordFolder {
 public:
  // Below `parent`. `everybodys`: other users may put files there too. Throws ToolError
  // (TRP-cfg-122).
  RecordFolder(const std::string& parent, bool everybodys);
  ~RecordFolder();
  RecordFolder(const RecordFolder&) = delete;
  RecordFolder& operator=(const RecordFolder&) = delete;

  const std::string& path() const { return name; }

  // All that was recorded.
  std::vector<sandbox::CallRecord> read() const;

 private:
  std::string name;
};

// The file that `word` names as a command: with a '/' itself, otherwise along PATH. Throws
// ToolError (TRP-cfg-120).
std::string findProgram(const std::string& word);

// Runs `words` and waits. `variable`: "NAME=VALUE" for its environment, if not empty. An interrupt
// from the terminal is the program's affair; SIGTERM and SIGHUP are passed on. Returns what a shell
// would: its exit code, or 128 and its signal. Throws ToolError (TRP-cfg-120).
int runProgram(const std::string& program, const std::vector<std::string>& words,
               const std::string& variable, bool outputToStandardError);

}  // namespace troupe
