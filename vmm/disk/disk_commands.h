#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include "vmm/words/exit_codes.h"

namespace troupe {

// The verbs of `troupe disk`, as in commands.h.
ExitCode diskCreate(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode diskInfo(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode diskCheck(kj::ArrayPtr<const kj::StringPtr> words);
ExitCode diskResize(kj::ArrayPtr<const kj::StringPtr> words);

}  // namespace troupe
