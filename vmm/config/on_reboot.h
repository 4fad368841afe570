#pragma once

#include <kj/string.h>

namespace troupe {

// What follows when the guest resets itself, crashes or panics.
enum class OnReboot { RESTART, EXIT };

// "restart" or "exit". Throws a user error for anything else.
OnReboot parseOnReboot(kj::StringPtr text);

}  // namespace troupe
