#include "vmm/cli/command_line.h"
#include "vmm/cli/commands.h"

namespace troupe {

namespace {

constexpr kj::StringPtr VERSION = "0.1.0"_kj;

}  // namespace

ExitCode versionCommand(kj::ArrayPtr<const kj::StringPtr> words) {
  CommandLine line("version", "Prints the version.", "", "troupe version");
  if (line.parse(words, 0) == nullptr) {
    printOut(line.help());
  } else {
    printOut(line.json() ? kj::str("{\"version\":\"", VERSION, "\"}\n")
                         : kj::str("troupe ", VERSION, "\n"));
  }
  return ExitCode::POWERED_OFF;
}

}  // namespace troupe
