#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include "vmm/words/exit_codes.h"

namespace troupe {

// What a user sees of a running VM, for as long as they look. As the verbs of vmm/cli/commands.h.
ExitCode topCommand(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode eventsCommand(kj::ArrayPtr<const kj::StringPtr> words);

}  // namespace troupe
