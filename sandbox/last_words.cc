#include "sandbox/last_words.h"

#include <string.h>
#include <unistd.h>

#include "sandbox/actor_setup.h"

namespace troupe::sandbox {

void sayLastWords(kj::StringPtr what, const kj::Exception& exception) {
  auto description = exception.getDescription();
  const char* code = strstr(description.cStr(), "TRP-");
  auto line = code == nullptr ? kj::str(what, ": ", description, " (", exception.getFile(),
                                        ", line ", exception.getLine(), ")\n")
                              : kj::str(code, "\n");
  // Best effort: the pipe may be full or gone, and there is nobody else to tell.
  if (write(LOG_FD, line.begin(), line.size()) < 0) return;
}

}  // namespace troupe::sandbox
