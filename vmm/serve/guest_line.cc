#include "vmm/serve/guest_line.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "vmm/files/run_folder.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

kj::AutoCloseFd connectToLine(kj::StringPtr vm, GuestLine line) {
  bool isSerial = line == GuestLine::SERIAL;
  auto path = kj::str(runFolder(), "/", vm, isSerial ? ".serial" : ".console");
  auto refuse = [&](int error) {
    UserError(codes::NO_LINE,
              kj::str("VM ", quote(vm), " has no ", isSerial ? "serial port" : "console",
                      " that listens at ", quote(path), ": ", errnoText(error)))
        .raise();
  };
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) refuse(ENAMETOOLONG);
  memcpy(address.sun_path, path.begin(), path.size());
  int raw;
  KJ_SYSCALL(raw = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  kj::AutoCloseFd fd(raw);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) refuse(errno);
  KJ_SYSCALL(fcntl(fd, F_SETFL, 0));
  return fd;
}

}  // namespace troupe::realm
