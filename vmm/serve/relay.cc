#include "vmm/serve/relay.h"

#include <errno.h>
#include <kj/debug.h>
#include <kj/encoding.h>
#include <kj/time.h>
#include <kj/vector.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/console/detach_key.h"
#include "vmm/cli/terminal.h"

namespace troupe {

namespace {

constexpr kj::Duration KEY_PATIENCE = 500 * kj::MILLISECONDS;  // for a second detach key
constexpr size_t PIECE = 16 << 10;
constexpr size_t MOST_UNSENT = 4 * PIECE;

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

// What is on its way to the other side, which takes it when it likes. It is listened to meanwhile:
// it may be waiting for that.
class Unsent {
 public:
  explicit Unsent(int socket) : socket(socket) {}

  bool isEmpty() const { return bytes.size() == 0; }
  bool hasRoom() const { return bytes.size() < MOST_UNSENT; }
  void add(kj::ArrayPtr<const kj::byte> more) { bytes.addAll(more); }
  void clear() { bytes.clear(); }

  // Sends what is taken now. False when nothing will be any more.
  bool send() {
    ssize_t sent = ::send(socket, bytes.begin(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    auto rest = kj::heapArray<kj::byte>(bytes.asPtr().slice(sent, bytes.size()));
    bytes.clear();
    bytes.addAll(rest);
    return true;
  }

 private:
  const int socket;
  kj::Vector<kj::byte> bytes;
};

class Relay {
 public:
  Relay(int socket, Detachable detachable, Written written)
      : socket(socket),
        isTyped(detachable == Detachable::YES && isatty(STDIN_FILENO)),
        written(written),
        unsent(socket) {
    if (isTyped) terminal = kj::heap<GuestTerminal>();
  }

  RelayEnd run() {
    for (;;) {
      KJ_IF_MAYBE (end, turn()) {
        return *end;
      }
    }
  }

 private:
  kj::Maybe<RelayEnd> turn() {
    pollfd fds[] = {{socket, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    if (!unsent.isEmpty()) fds[0].events |= POLLOUT;
    if (!hasInput || !unsent.hasRoom()) fds[1].fd = -1;  // poll passes it over
    auto left = kj::max(keyStandsAlone - clock.now(), 0 * kj::SECONDS);
    int count = poll(fds, 2, key.pending() ? int(left / kj::MILLISECONDS) + 1 : -1);
    if (count < 0 && errno == EINTR) return nullptr;
    KJ_SYSCALL(count);
    // The key, and nothing after it, however much the other side says.
    bool isOver = key.pending() && fds[1].revents == 0 && clock.now() >= keyStandsAlone;
    if (isOver) return RelayEnd::DETACHED;
    if ((fds[0].revents & ~POLLOUT) != 0) {
      KJ_IF_MAYBE (end, hear()) {
        return *end;
      }
    }
    if ((fds[0].revents & POLLOUT) != 0) say();
    if (fds[1].revents != 0) return readInput();
    return nullptr;
  }

  kj::Maybe<RelayEnd> hear() {
    ssize_t bytes = readSome(socket, buffer);
    if (bytes < 0 && errno == EAGAIN) return nullptr;
    if (bytes <= 0) return RelayEnd::CLOSED;
    if (!writeOut(kj::arrayPtr(buffer, bytes), written)) return RelayEnd::OUTPUT_GONE;
    return nullptr;
  }

  void say() {
    if (!unsent.send()) {
      unsent.clear();
      hasInput = false;
    } else if (!hasInput) {
      passOnEnd();
    }
  }

  kj::Maybe<RelayEnd> readInput() {
    ssize_t bytes = readSome(STDIN_FILENO, buffer);
    if (bytes <= 0) {
      hasInput = false;
      passOnEnd();
      return nullptr;
    }
    auto typed = kj::arrayPtr(buffer, bytes);
    if (isTyped) {
      auto result = key.filter(typed);
      if (result.detach) return RelayEnd::DETACHED;
      typed = typed.slice(0, result.kept);
      keyStandsAlone = clock.now() + KEY_PATIENCE;
    }
    unsent.add(typed);
    return nullptr;
  }

  // Behind the last byte.
  void passOnEnd() {
    if (unsent.isEmpty()) shutdown(socket, SHUT_WR);
  }

  const int socket;
  const bool isTyped;
  const Written written;
  kj::Maybe<kj::Own<GuestTerminal>> terminal;
  console::DetachKey key;
  const kj::MonotonicClock& clock = kj::systemPreciseMonotonicClock();
  kj::TimePoint keyStandsAlone = clock.now();  // from then on, while it is pending
  Unsent unsent;
  bool hasInput = true;
  kj::byte buffer[PIECE];
};

}  // namespace

RelayEnd relay(int socket, Detachable detachable, Written written) {
  return Relay(socket, detachable, written).run();
}

}  // namespace troupe
