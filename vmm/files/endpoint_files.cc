#include "vmm/files/endpoint_files.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/files/open_file.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr int WAITING_CLIENTS = 1024;  // a thousand that come at once, before one is accepted

kj::AutoCloseFd newSocket() {
  int fd;
  KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return kj::AutoCloseFd(fd);
}

bool isListening(const sockaddr_un& address) {
  auto probe = newSocket();
  int result = connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  return result == 0 || errno == EAGAIN || errno == EACCES;
}

// Removes a socket nobody listens on; refuses to touch anything else.
void clearStale(const sockaddr_un& address, kj::StringPtr purpose, const codes::ErrorCode& code) {
  struct stat info;
  if (lstat(address.sun_path, &info) != 0) return;  // bind says what is wrong with the folder
  if (!S_ISSOCK(info.st_mode)) {
    UserError(code, kj::str(purpose, ": ", quote(address.sun_path), " exists and is ",
                            fileKind(info.st_mode), "; it is left alone"))
        .raise();
  }
  if (isListening(address)) {
    UserError(code, kj::str(purpose, ": another program listens on ", quote(address.sun_path)))
        .advice("see", "ss -xlp")
        .raise();
  }
  unlink(address.sun_path);
}

void openPty(kj::StringPtr option, EndpointFiles& files) {
  char name[64];
  termios modes;
  kj::AutoCloseFd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (master.get() < 0 || grantpt(master) != 0 || unlockpt(master) != 0 ||
      ptsname_r(master, name, sizeof(name)) != 0 || tcgetattr(master, &modes) != 0) {
    UserError(codes::NO_PTY, kj::str(option, ": no pty can be made: ", errnoText(errno)))
        .advice("see", "mount | grep devpts; cat /proc/sys/kernel/pty/nr /proc/sys/kernel/pty/max")
        .raise();
  }
  // Else the guest would read back its own output as an echo. Set through the master, it lasts for
  // as long as the master is open.
  cfmakeraw(&modes);
  KJ_SYSCALL(tcsetattr(master, TCSANOW, &modes));
  files.file = kj::mv(master);
  files.slavePath = kj::heapString(name);
}

}  // namespace

ListeningSocket::ListeningSocket(kj::StringPtr path, kj::StringPtr purpose,
                                 const codes::ErrorCode& code)
    : path(kj::heapString(path)), socket(newSocket()) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    UserError(code, kj::str(purpose, ": the path ", quote(path), " has ", path.size(),
                            " bytes; the path of a unix socket has at most ",
                            sizeof(address.sun_path) - 1))
        .raise();
  }
  memcpy(address.sun_path, path.begin(), path.size());
  clearStale(address, purpose, code);
  mode_t before = umask(0177);
  int result = bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  int error = errno;
  umask(before);
  if (result != 0) {
    UserError(code,
              kj::str(purpose, ": the socket ", quote(path), " cannot be made: ", errnoText(error)))
        .raise();
  }
  struct stat info;
  KJ_SYSCALL(lstat(address.sun_path, &info));
  inode = info.st_ino;
  KJ_SYSCALL(listen(socket, WAITING_CLIENTS));
}

ListeningSocket::~ListeningSocket() noexcept(false) {
  struct stat info;
  if (lstat(path.cStr(), &info) == 0 && S_ISSOCK(info.st_mode) && info.st_ino == inode) {
    unlink(path.cStr());
  }
}

EndpointFiles openEndpoint(kj::StringPtr option, const Endpoint& endpoint) {
  EndpointFiles files = {endpoint.kind, nullptr, nullptr, nullptr};
  switch (endpoint.kind) {
    case Endpoint::Kind::STDIO:
      return files;
    case Endpoint::Kind::FILE: {
      // Appended to, never truncated: a slip in the path must not empty somebody's file.
      int fd = open(endpoint.path.cStr(),
                    O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0666);
      if (fd < 0) {
        UserError(codes::BACKEND_FILE, kj::str(option, ": file ", quote(endpoint.path),
                                               " cannot be opened for writing: ", errnoText(errno)))
            .raise();
      }
      files.file = kj::AutoCloseFd(fd);
      return files;
    }
    case Endpoint::Kind::SOCKET:
      files.socket = kj::heap<ListeningSocket>(endpoint.path, option, codes::BACKEND_SOCKET);
      return files;
    case Endpoint::Kind::PTY:
      openPty(option, files);
      return files;
  }
  KJ_UNREACHABLE;
}

}  // namespace troupe
