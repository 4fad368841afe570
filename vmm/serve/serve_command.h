#pragma once

#include "vmm/cli/commands.h"

namespace troupe {

// What is said to `troupe serve`, and itself.

ExitCode serveCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode launchCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode socatCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode rpcCommand(kj::ArrayPtr<const kj::StringPtr> words);

}  // namespace troupe
