#pragma once

#include <kj/exception.h>
#include <kj/string.h>

namespace troupe::broker {

// Throws an error for the user: its text is all they see, so it is nothing but `parts`, and it
// begins with its code (docs/errors.md). KJ's own macros would add the source of their arguments.
template <typename... Parts>
[[noreturn]] void refuse(Parts&&... parts) {
  kj::throwFatalException(kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                                        kj::str(kj::fwd<Parts>(parts)...)));
  KJ_UNREACHABLE;
}

}  // namespace troupe::broker
