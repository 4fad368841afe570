#include "vmm/serve/relay.h"

#include <errno.h>
#include <kj/debug.h>
#include <kj/encoding.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/console/detach_key.h"
#include "vmm/cli/terminal.h"

namespace troupe {

namespace {

constexpr int KEY_PATIENCE_MS = 500;  // for a second detach key
constexpr size_t PIECE = 16 << 10;

// False when it takes no more.
bool writeAll(int fd, kj::ArrayPtr<const kj::byte> bytes) {
  while (bytes.size() > 0) {
    ssize_t written = write(fd, bytes.begin(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) {
      pollfd waiting = {fd, POLLOUT, 0};
      poll(&waiting, 1, -1);
      continue;
    }
    if (written <= 0) return false;
    bytes = bytes.slice(written, bytes.size());
  }
  return true;
}

bool writeOut(kj::ArrayPtr<const kj::byte> bytes, Written written) {
  if (written == Written::AS_IT_IS) return writeAll(STDOUT_FILENO, bytes);
  auto line = kj::str("{\"base64\":\"", kj::encodeBase64(bytes), "\"}\n");
  return writeAll(STDOUT_FILENO, line.asBytes());
}

ssize_t readSome(int fd, kj::ArrayPtr<kj::byte> into) {
  for (;;) {
    ssize_t bytes = read(fd, into.begin(), into.size());
    if (bytes >= 0 || errno != EINTR) return bytes;
  }
}

}  // namespace

RelayEnd relay(int socket, Detachable detachable, Written written) {
  bool isTyped = detachable == Detachable::YES && isatty(STDIN_FILENO);
  kj::Maybe<kj::Own<GuestTerminal>> terminal;
  if (isTyped) terminal = kj::heap<GuestTerminal>();
  console::DetachKey key;
  kj::byte buffer[PIECE];
  pollfd fds[] = {{socket, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
  for (;;) {
    int count = poll(fds, 2, key.pending() ? KEY_PATIENCE_MS : -1);
    if (count < 0 && errno == EINTR) continue;
    KJ_SYSCALL(count);
    if (count == 0) return RelayEnd::DETACHED;  // the key, and nothing after it
    if (fds[0].revents != 0) {
      ssize_t bytes = readSome(socket, buffer);
      if (bytes < 0 && errno == EAGAIN) continue;
      if (bytes <= 0) return RelayEnd::CLOSED;
      if (!writeOut(kj::arrayPtr(buffer, bytes), written)) return RelayEnd::OUTPUT_GONE;
    }
    if (fds[1].revents == 0) continue;
    ssize_t bytes = readSome(STDIN_FILENO, buffer);
    if (bytes <= 0) {
      fds[1].fd = -1;  // poll passes it over
      shutdown(socket, SHUT_WR);
      continue;
    }
    auto typed = kj::arrayPtr(buffer, bytes);
    if (isTyped) {
      auto result = key.filter(typed);
      if (result.detach) return RelayEnd::DETACHED;
      typed = typed.slice(0, result.kept);
    }
    if (!writeAll(socket, typed)) fds[1].fd = -1;
  }
}

}  // namespace troupe
