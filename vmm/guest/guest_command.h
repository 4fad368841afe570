#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include "vmm/words/exit_codes.h"

namespace troupe {

// `troupe guest create`: makes bundles (realm/bundle.h).
ExitCode guestCommand(kj::ArrayPtr<const kj::StringPtr> words);

}  // namespace troupe
