#pragma once

#include "vmm/commands.h"

namespace troupe {

ExitCode serveCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode launchCommand(kj::ArrayPtr<const kj::StringPtr> words);

}  // namespace troupe
