#pragma once

#include <kj/exception.h>
#include <kj/string.h>

namespace troupe::sandbox {

// Tells `troupe`, over the log pipe, why this actor ends: one line, which begins with the error's
// stable code if it has one. `what` leads in an error without one.
void sayLastWords(kj::StringPtr what, const kj::Exception& exception);

}  // namespace troupe::sandbox
