#pragma once

#include <kj/string.h>

namespace troupe::sandbox {

// "Permission denied (EACCES)".
kj::String errnoText(int error);

}  // namespace troupe::sandbox
