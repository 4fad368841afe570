#include "sandbox/errno_text.h"

#include <string.h>

namespace troupe::sandbox {

kj::String errnoText(int error) {
  const char* name = strerrorname_np(error);
  return kj::str(strerrordesc_np(error) == nullptr ? "unknown error" : strerrordesc_np(error), " (",
                 name == nullptr ? "?" : name, ")");
}

}  // namespace troupe::sandbox
