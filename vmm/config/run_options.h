#pragma once

#include <capnp/message.h>
#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include "protos/config.capnp.h"
#include "vmm/cli/command_line.h"

namespace troupe {

// What the words after `troupe run` ask for.
struct RunRequest {
  enum class Action { RUN, PRINT_CONFIG, HELP };
  Action action;
  kj::Own<capnp::MallocMessageBuilder> config;  // holds a VmConfig; complete but for defaults
  kj::String help;                              // with HELP
  bool json = false;
  bool paused = false;  // the guest waits for `troupe resume`
};

// Reads the options and the configuration file they may name. What an option says overrides the
// file; its disks follow the file's.
RunRequest parseRunOptions(kj::ArrayPtr<const kj::StringPtr> words);

}  // namespace troupe
