#include "devices/console/complaint.h"

#include <string.h>
#include <unistd.h>

namespace troupe::console {

void complain(kj::StringPtr text) {
  auto line = kj::str(text, '\n');
  ssize_t written = ::write(STDERR_FILENO, line.begin(), line.size());
  (void)written;
}

kj::String errnoText(int number) {
  char buffer[128];
  return kj::str(strerror_r(number, buffer, sizeof(buffer)), " (errno ", number, ")");
}

}  // namespace troupe::console
