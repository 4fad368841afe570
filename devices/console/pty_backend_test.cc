#include "devices/console/pty_backend.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <pty.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "devices/console/testing/loop.h"

namespace troupe::console {
namespace {

using testing::bytes;
using testing::noise;

// A line on the master of a raw pseudo-terminal, as `troupe` makes one.
struct Bench {
  testing::Loop loop;
  Line line{loop.timer};
  kj::AutoCloseFd master;
  std::string name;
  kj::Own<PtyBackend> backend;

  Bench() {
    int fd;
    KJ_SYSCALL(fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    master = kj::AutoCloseFd(fd);
    KJ_SYSCALL(grantpt(fd));
    KJ_SYSCALL(unlockpt(fd));
    char buffer[64];
    KJ_ASSERT(ptsname_r(fd, buffer, sizeof(buffer)) == 0);
    name = buffer;
    termios mode;
    KJ_SYSCALL(tcgetattr(fd, &mode));
    cfmakeraw(&mode);
    KJ_SYSCALL(tcsetattr(fd, TCSANOW, &mode));
    backend = kj::heap<PtyBackend>(loop.events, line, master);
  }

  kj::AutoCloseFd attach() {
    int fd;
    KJ_SYSCALL(fd = open(name.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
    return kj::AutoCloseFd(fd);
  }
};

TEST(PtyBackend, LateReaderGetsEarlyBytes) {
  Bench bench;
  std::string text = noise(300000);
  bench.line.output.write(bytes(text));
  bench.loop.turn();
  auto user = bench.attach();
  EXPECT_TRUE(bench.loop.readAll(user, text.size()) == text);
}

TEST(PtyBackend, InputReachesTheGuest) {
  Bench bench;
  auto user = bench.attach();
  ASSERT_EQ(write(user, "hello\x1d", 6), 6);
  EXPECT_TRUE(bench.loop.until([&]() { return bench.line.input.waiting().size() == 6; }));
}

TEST(PtyBackend, MayBeClosedAndOpenedAgain) {
  Bench bench;
  { auto user = bench.attach(); }
  bench.loop.turn();
  bench.line.output.write(bytes("again"));
  auto user = bench.attach();
  EXPECT_EQ(bench.loop.readAll(user, 5), "again");
  ASSERT_EQ(write(user, "x", 1), 1);
  EXPECT_TRUE(bench.loop.until([&]() { return bench.line.input.waiting().size() == 1; }));
}

TEST(PtyBackend, SleepsWhileNobodyIsThere) {
  Bench bench;
  { auto user = bench.attach(); }
  bench.loop.turn();
  timespec before, after;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  bench.loop.turn(300 * kj::MILLISECONDS);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  int64_t usedNs = (after.tv_sec - before.tv_sec) * 1000000000ll + after.tv_nsec - before.tv_nsec;
  EXPECT_LT(usedNs, 100000000);  // a loop that spins would use all 300 ms
}

TEST(PtyBackend, NobodyReadingHoldsTheGuestUpOnce) {
  Bench bench;
  std::string text = noise(1 << 20);
  auto start = bench.loop.timer.now();
  for (int i = 0; i < 10; ++i) {
    testing::writeCarefully(bench.line.output, text).wait(bench.loop.io.waitScope);
  }
  EXPECT_LT(bench.loop.timer.now() - start, 2 * kj::SECONDS);
}

}  // namespace
}  // namespace troupe::console
