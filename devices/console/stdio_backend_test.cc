#include "devices/console/stdio_backend.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <pty.h>
#include <unistd.h>

#include "devices/console/detach.h"
#include "devices/console/testing/loop.h"

namespace troupe::console {
namespace {

using testing::bytes;
using testing::noise;

// A line with standard streams on fds of the test's choice.
struct Bench: StdioBackend::Host {
  testing::Loop loop;
  Line line{loop.timer};
  bool detached = false;
  kj::Own<StdioBackend> backend;

  void detach() override { detached = true; }
  void confineThread(kj::StringPtr) override {}

  void open(kj::Maybe<int> in, int out) {
    backend = kj::heap<StdioBackend>(loop.events, line, in, out, *this);
  }

  // What the guest takes until it has `count` bytes.
  std::string take(size_t count) {
    std::string all;
    loop.until([&]() {
      auto waiting = line.input.waiting();
      all.append(reinterpret_cast<const char*>(waiting.begin()), waiting.size());
      line.input.took(waiting.size());
      return all.size() >= count;
    });
    return all;
  }
};

void writeAll(int fd, const std::string& text) {
  ASSERT_EQ(write(fd, text.data(), text.size()), text.size());
}

struct Terminal {
  kj::AutoCloseFd user;    // the master: what a person types and sees
  kj::AutoCloseFd device;  // the side a process has as its standard streams
};
Terminal rawTerminal() {
  int master, slave;
  KJ_SYSCALL(openpty(&master, &slave, nullptr, nullptr, nullptr));
  termios mode;
  KJ_SYSCALL(tcgetattr(slave, &mode));
  cfmakeraw(&mode);
  KJ_SYSCALL(tcsetattr(slave, TCSANOW, &mode));
  return {kj::AutoCloseFd(master), kj::AutoCloseFd(slave)};
}

int flags(int fd) {
  return fcntl(fd, F_GETFL);
}

TEST(StdioBackend, OutputReachesAPipe) {
  auto out = testing::pipePair();
  Bench bench;
  bench.line.output.write(bytes("before "));
  bench.open(nullptr, out.ours);
  bench.line.output.write(bytes("after"));
  EXPECT_EQ(bench.loop.readAll(out.theirs, 12), "before after");
}

TEST(StdioBackend, OutputIsAppendedToAFile) {
  auto file = testing::memoryFile("old\n");
  KJ_SYSCALL(fcntl(file, F_SETFL, O_APPEND));
  Bench bench;
  bench.open(nullptr, file);
  std::string text = noise(300000);
  bench.line.output.write(bytes(text));
  bench.line.output.drained(20 * kj::SECONDS).wait(bench.loop.io.waitScope);
  EXPECT_EQ(testing::content(file), "old\n" + text);
}

TEST(StdioBackend, SharedDescriptionsStayBlocking) {
  auto in = testing::pipePair();
  auto out = testing::pipePair();
  int inBefore = flags(in.theirs), outBefore = flags(out.ours);
  Bench bench;
  bench.open(in.theirs.get(), out.ours);
  writeAll(in.ours, "x");
  bench.line.output.write(bytes("y"));
  EXPECT_EQ(bench.take(1), "x");
  EXPECT_EQ(bench.loop.readAll(out.theirs, 1), "y");
  EXPECT_EQ(flags(in.theirs), inBefore);
  EXPECT_EQ(flags(out.ours), outBefore);
}

TEST(StdioBackend, DescriptionsMadeNonBlockingByOthersWork) {
  auto in = testing::pipePair();
  auto out = testing::pipePair();
  KJ_SYSCALL(fcntl(in.theirs, F_SETFL, O_NONBLOCK));
  KJ_SYSCALL(fcntl(out.ours, F_SETFL, O_NONBLOCK));
  Bench bench;
  bench.open(in.theirs.get(), out.ours);
  bench.loop.turn();
  writeAll(in.ours, "x");
  EXPECT_EQ(bench.take(1), "x");
  std::string text = noise(500000);  // more than the pipe holds
  auto writing = testing::writeCarefully(bench.line.output, text).eagerlyEvaluate(nullptr);
  bench.loop.turn();
  EXPECT_EQ(bench.loop.readAll(out.theirs, text.size()), text);
}

TEST(StdioBackend, SlowPipeGetsTenMebibytesComplete) {
  auto out = testing::pipePair();
  Bench bench;
  bench.open(nullptr, out.ours);
  std::string text = noise(10 << 20);
  auto writing = testing::writeCarefully(bench.line.output, text).eagerlyEvaluate(nullptr);
  EXPECT_TRUE(bench.loop.readAll(out.theirs, text.size()) == text);
}

TEST(StdioBackend, StuckPipeNeitherBlocksTheGuestNorGrowsMemory) {
  auto out = testing::pipePair();
  Bench bench;
  bench.open(nullptr, out.ours);
  std::string text = noise(1 << 20);
  bench.line.output.write(bytes(text));  // touches all of the buffer
  size_t before = testing::residentBytes();
  for (int i = 0; i < 20; ++i) {
    auto writing = testing::writeCarefully(bench.line.output, text);
    writing.wait(bench.loop.io.waitScope);
  }
  EXPECT_LT(testing::residentBytes(), before + (10 << 20));  // of 20 MiB; sanitizers keep some

  // The reader wakes up: it gets what it had, a line about the loss, and the newest bytes.
  std::string got;
  std::string newest = text.substr(text.size() - 4096);
  KJ_SYSCALL(fcntl(out.theirs, F_SETFL, O_NONBLOCK));
  EXPECT_TRUE(bench.loop.until([&]() {
    char piece[65536];
    ssize_t count;
    while ((count = read(out.theirs, piece, sizeof(piece))) > 0)
      got.append(piece, count);
    return got.size() > newest.size() && got.substr(got.size() - newest.size()) == newest;
  }));
  EXPECT_NE(got.find("\r\n[troupe: "), std::string::npos);
}

TEST(StdioBackend, ClosedOutputEndsOutputAlone) {
  auto in = testing::pipePair();
  auto out = testing::pipePair();
  out.theirs = nullptr;
  Bench bench;
  bench.open(in.theirs.get(), out.ours);
  bench.line.output.write(bytes(noise(100000)));
  bench.loop.turn();
  bench.line.output.write(bytes(noise(2 << 20)));
  bench.loop.turn();
  EXPECT_FALSE(bench.line.output.congested());
  writeAll(in.ours, "still here");
  EXPECT_EQ(bench.take(10), "still here");
}

TEST(StdioBackend, FullDiskIsTriedAgainAndDoesNotEndOutput) {
  int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  kj::AutoCloseFd file(full);
  Bench bench;
  bench.open(nullptr, file);
  bench.line.output.write(bytes("x"));
  bench.loop.turn(50 * kj::MILLISECONDS);
  auto replacement = testing::memoryFile();
  KJ_SYSCALL(dup2(replacement, file));
  EXPECT_TRUE(bench.loop.until([&]() { return testing::content(replacement) == "x"; }));
}

TEST(StdioBackend, PipedInputArrivesCompleteThenEnds) {
  auto in = testing::pipePair();
  auto out = testing::pipePair();
  std::string text = noise(50000);
  writeAll(in.ours, text);
  in.ours = nullptr;
  Bench bench;
  bench.open(in.theirs.get(), out.ours);
  EXPECT_EQ(bench.take(text.size()), text);
  bench.line.output.write(bytes("output goes on"));
  EXPECT_EQ(bench.loop.readAll(out.theirs, 14), "output goes on");
}

TEST(StdioBackend, InputWaitsInThePipeWhileTheGuestTakesNone) {
  auto in = testing::pipePair();
  auto out = testing::pipePair();
  Bench bench;
  bench.open(in.theirs.get(), out.ours);
  std::string text = noise(60000);
  writeAll(in.ours, text);
  bench.loop.turn();
  EXPECT_EQ(bench.line.input.waiting().size(), InputQueue::CAPACITY);
  EXPECT_EQ(bench.take(text.size()), text);
}

TEST(StdioBackend, InputFromAFileIsReadToItsEnd) {
  std::string text = noise(20000);
  auto file = testing::memoryFile(text);
  auto out = testing::memoryFile();
  Bench bench;
  bench.open(file.get(), out);
  EXPECT_EQ(bench.take(text.size()), text);
}

TEST(StdioBackend, DevNullWorksBothWays) {
  kj::AutoCloseFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  Bench bench;
  bench.open(null.get(), null);
  bench.line.output.write(bytes(noise(100000)));
  bench.line.output.drained(20 * kj::SECONDS).wait(bench.loop.io.waitScope);
  EXPECT_EQ(bench.line.input.waiting().size(), 0);
}

TEST(StdioBackend, DetachKeyInAPipeIsAByteLikeAnyOther) {
  auto in = testing::pipePair();
  auto out = testing::pipePair();
  writeAll(in.ours,
           "a\x1d"
           "b");
  in.ours = nullptr;
  Bench bench;
  bench.open(in.theirs.get(), out.ours);
  EXPECT_EQ(bench.take(3),
            "a\x1d"
            "b");
  EXPECT_FALSE(bench.detached);
}

TEST(StdioBackend, DetachKeyOnATerminalLeavesAfterAShortWait) {
  auto terminal = rawTerminal();
  Bench bench;
  bench.open(terminal.device.get(), terminal.device);
  writeAll(terminal.user, "ab");
  EXPECT_EQ(bench.take(2), "ab");
  writeAll(terminal.user, "\x1d");
  EXPECT_TRUE(bench.loop.until([&]() { return bench.detached; }));
  EXPECT_EQ(bench.line.input.waiting().size(), 0);
}

TEST(StdioBackend, DetachKeyTwiceOnATerminalReachesTheGuestOnce) {
  auto terminal = rawTerminal();
  Bench bench;
  bench.open(terminal.device.get(), terminal.device);
  writeAll(terminal.user, "\x1d\x1d");
  EXPECT_EQ(bench.take(1), "\x1d");
  bench.loop.turn(400 * kj::MILLISECONDS);
  EXPECT_FALSE(bench.detached);
}

TEST(StdioBackend, DetachKeyWorksWhileTheGuestTakesNothing) {
  auto terminal = rawTerminal();
  Bench bench;
  bench.open(terminal.device.get(), terminal.device);
  for (int i = 0; i < 10; ++i) {
    writeAll(terminal.user, std::string(1000, 'x'));
    bench.loop.turn();
  }
  EXPECT_EQ(bench.line.input.waiting().size(), InputQueue::CAPACITY);
  writeAll(terminal.user, "\x1d");
  EXPECT_TRUE(bench.loop.until([&]() { return bench.detached; }));
}

TEST(StdioBackend, ClosedTerminalEndsInputAndOutputAlone) {
  auto terminal = rawTerminal();
  Bench bench;
  bench.open(terminal.device.get(), terminal.device);
  terminal.user = nullptr;
  bench.line.output.write(bytes("x"));
  bench.loop.turn();
  for (int i = 0; i < 3; ++i)
    bench.line.output.write(bytes(noise(1 << 20)));
  EXPECT_TRUE(bench.loop.until([&] { return !bench.line.output.congested(); }));
  EXPECT_FALSE(bench.detached);
}

TEST(StdioBackend, TerminalShowsOutput) {
  auto terminal = rawTerminal();
  Bench bench;
  bench.open(terminal.device.get(), terminal.device);
  std::string text = noise(200000);
  auto writing = testing::writeCarefully(bench.line.output, text).eagerlyEvaluate(nullptr);
  EXPECT_TRUE(bench.loop.readAll(terminal.user, text.size()) == text);
}

}  // namespace
}  // namespace troupe::console
