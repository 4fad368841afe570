#include "devices/console/uart_relay.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "devices/console/polled_fd.h"
#include "devices/console/stdio_backend.h"
#include "devices/console/testing/loop.h"

namespace troupe::console {
namespace {

using testing::bytes;
using testing::noise;

// Broker on one side, a pipe or a file of the user on the other.
struct Bench: StdioBackend::Host {
  testing::Loop loop;
  testing::Pair uart = testing::socketPair();  // ours: the broker's end
  Line line{loop.timer};
  UartRelay relay{loop.events, line, uart.theirs};
  kj::Promise<void> running = relay.run().eagerlyEvaluate(nullptr);

  Bench() { makeNonBlocking(uart.ours); }

  void detach() override {}
  void confineThread(kj::StringPtr) override {}

  // Sends all of `text` as the broker, doing `meanwhile` whenever the socket is full.
  void brokerSends(const std::string& text, kj::Function<void()> meanwhile) {
    size_t sent = 0;
    loop.until([&]() {
      ssize_t count = write(uart.ours, text.data() + sent, text.size() - sent);
      if (count > 0) sent += count;
      meanwhile();
      return sent == text.size();
    });
    ASSERT_EQ(sent, text.size());
  }
};

TEST(UartRelay, TenMebibytesGoBothWaysUnchanged) {
  auto in = testing::pipePair();
  auto out = testing::pipePair();
  Bench bench;
  makeNonBlocking(in.ours);
  makeNonBlocking(out.theirs);
  StdioBackend backend(bench.loop.events, bench.line, in.theirs.get(), out.ours, bench);
  std::string down = noise(10 << 20, 1), up = noise(10 << 20, 2);
  std::string shown, typed;
  size_t given = 0;
  auto move = [&]() {
    char piece[65536];
    ssize_t count = write(in.ours, up.data() + given, up.size() - given);
    if (count > 0) given += count;
    while ((count = read(out.theirs, piece, sizeof(piece))) > 0)
      shown.append(piece, count);
    while ((count = read(bench.uart.ours, piece, sizeof(piece))) > 0)
      typed.append(piece, count);
  };
  bench.brokerSends(down, move);
  bench.loop.until([&]() {
    move();
    return shown.size() >= down.size() && typed.size() >= up.size();
  });
  EXPECT_TRUE(shown == down);
  EXPECT_TRUE(typed == up);
}

TEST(UartRelay, EndsWhenTheBrokerClosesAfterAllItSent) {
  auto file = testing::memoryFile();
  Bench bench;
  StdioBackend backend(bench.loop.events, bench.line, nullptr, file, bench);
  std::string text = noise(150000);
  bench.brokerSends(text, []() {});
  bench.uart.ours = nullptr;
  bench.running.then([&]() { return bench.line.output.drained(5 * kj::SECONDS); })
      .wait(bench.loop.io.waitScope);
  EXPECT_TRUE(testing::content(file) == text);
}

TEST(UartRelay, StuckReaderDoesNotHoldTheBrokerUpForLong) {
  Bench bench;
  OutputLog::Reader stuck(bench.line.output);
  std::string text = noise(10 << 20);
  auto start = bench.loop.timer.now();
  bench.brokerSends(text, []() {});
  EXPECT_LT(bench.loop.timer.now() - start, 5 * kj::SECONDS);
}

TEST(UartRelay, InputWaitsWhileTheBrokerTakesNone) {
  Bench bench;
  std::string text = noise(4 << 20);
  size_t taken = 0;
  for (int i = 0; i < 200; ++i) {
    taken += bench.line.input.append(bytes(text).slice(taken, text.size()));
    bench.loop.turn(200 * kj::MICROSECONDS);
  }
  EXPECT_LT(taken, 1 << 20);  // what a socket buffer and the queue hold
  EXPECT_EQ(bench.line.input.room(), 0);
}

}  // namespace
}  // namespace troupe::console
