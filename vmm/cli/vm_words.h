#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include "vmm/cli/command_line.h"

namespace troupe {

// Options and the one argument of a command about one VM.
struct VmWords {
  kj::StringPtr name;
  bool json;
};

// None when --help was asked for, and printed.
kj::Maybe<VmWords> parseVmWords(CommandLine& line, kj::ArrayPtr<const kj::StringPtr> words);

}  // namespace troupe
