#include "vmm/serve/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

namespace troupe {
namespace {

constexpr int SILENCE_MS = 20000;  // of who hangs
constexpr int STEP_MS = 10;

struct Pair {
  kj::AutoCloseFd ours, theirs;

  Pair() {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    ours = kj::AutoCloseFd(fds[0]);
    theirs = kj::AutoCloseFd(fds[1]);
  }
};

// A process that relays between these until it ends, with its RelayEnd as exit code.
class Relaying {
 public:
  Relaying(int input, int output, Pair& pair, Detachable detachable) {
    KJ_SYSCALL(child = fork());
    if (child == 0) {
      pair.ours = nullptr;
      KJ_SYSCALL(dup2(input, STDIN_FILENO));
      KJ_SYSCALL(dup2(output, STDOUT_FILENO));
      _exit(int(relay(pair.theirs, detachable, Written::AS_IT_IS)));
    }
    pair.theirs = nullptr;
  }
  ~Relaying() noexcept(false) {
    if (child <= 0) return;
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  KJ_DISALLOW_COPY(Relaying);

  RelayEnd end() {
    int status = 0;
    KJ_SYSCALL(waitpid(child, &status, 0));
    child = -1;
    KJ_ASSERT(WIFEXITED(status), status);
    return RelayEnd(WEXITSTATUS(status));
  }

 private:
  pid_t child = -1;
};

kj::AutoCloseFd memoryOf(size_t bytes) {
  int fd;
  KJ_SYSCALL(fd = memfd_create("relay_test", MFD_CLOEXEC));
  KJ_SYSCALL(ftruncate(fd, bytes));
  return kj::AutoCloseFd(fd);
}

bool isReadyFor(int fd, short events, int withinMs = SILENCE_MS) {
  pollfd look = {fd, events, 0};
  return poll(&look, 1, withinMs) == 1;
}

// Says so much, and hears nothing before that is said. How much it hears then, up to the end; 0 if
// it would wait for ever.
size_t speakThenHear(int socket, size_t bytes) {
  char buffer[16 << 10] = {};
  for (size_t said = 0; said < bytes;) {
    if (!isReadyFor(socket, POLLOUT)) return 0;
    ssize_t sent =
        send(socket, buffer, kj::min(sizeof(buffer), bytes - said), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) said += sent;
  }
  size_t heard = 0;
  for (;;) {
    if (!isReadyFor(socket, POLLIN)) return 0;
    ssize_t got = read(socket, buffer, sizeof(buffer));
    if (got <= 0) return heard;
    heard += got;
  }
}

TEST(Relay, ListensToWhoHearsNothingBeforeItHasSpoken) {
  constexpr size_t BYTES = 4 << 20;
  auto input = memoryOf(BYTES), output = memoryOf(0);
  Pair pair;
  Relaying relaying(input, output, pair, Detachable::NO);
  ASSERT_EQ(speakThenHear(pair.ours, BYTES), BYTES);
  pair.ours = nullptr;
  EXPECT_EQ(relaying.end(), RelayEnd::CLOSED);
  EXPECT_EQ(lseek(output, 0, SEEK_END), off_t(BYTES));
}

TEST(Relay, IsLeftByTheKeyWhileTheOtherSideSpeaks) {
  int master, slave;
  KJ_SYSCALL(openpty(&master, &slave, nullptr, nullptr, nullptr));
  kj::AutoCloseFd keyboard(master), terminal(slave);
  termios modes;
  KJ_SYSCALL(tcgetattr(terminal, &modes));
  cfmakeraw(&modes);  // it is not the terminal of this session, so nobody else does
  KJ_SYSCALL(tcsetattr(terminal, TCSANOW, &modes));
  int output[2];
  KJ_SYSCALL(pipe2(output, O_CLOEXEC));
  kj::AutoCloseFd heard(output[0]), spoken(output[1]);
  Pair pair;
  Relaying relaying(terminal, spoken, pair, Detachable::YES);
  ASSERT_EQ(write(pair.ours, "x", 1), 1);
  ASSERT_TRUE(isReadyFor(heard, POLLIN));  // so the keyboard is looked at
  ASSERT_EQ(write(keyboard, "\x1d", 1), 1);
  constexpr short GONE = 0;  // that is told unasked
  for (int waited = 0; waited < SILENCE_MS && !isReadyFor(pair.ours, GONE, STEP_MS);
       waited += STEP_MS) {
    if (send(pair.ours, "x", 1, MSG_NOSIGNAL) < 0) break;
  }
  pair.ours = nullptr;
  EXPECT_EQ(relaying.end(), RelayEnd::DETACHED);
}

}  // namespace
}  // namespace troupe
