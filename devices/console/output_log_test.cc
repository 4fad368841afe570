#include "devices/console/output_log.h"

#include <gtest/gtest.h>
#include <kj/timer.h>

#include "devices/console/testing/loop.h"

namespace troupe::console {
namespace {

using testing::bytes;
using testing::noise;
using testing::takeAll;

// A log of 1024 bytes, and a clock that only the test moves.
class OutputLogTest: public ::testing::Test {
 public:
  ~OutputLogTest() noexcept override = default;  // as gtest's own; its members' are not

 protected:
  static constexpr size_t CAPACITY = 1024;

  testing::Loop loop;
  kj::TimerImpl clock{kj::origin<kj::TimePoint>()};
  kj::TimePoint now = kj::origin<kj::TimePoint>();
  OutputLog log{clock, CAPACITY};

  void pass(kj::Duration time) {
    now = now + time;
    clock.advanceTo(now);
  }
  bool ready(kj::Promise<void>& promise) { return promise.poll(loop.io.waitScope); }

  // All of the time a reader has, in the steps in which it is judged.
  void passPatience(kj::Promise<void>& promise) {
    pass(OutputLog::PATIENCE / 2);
    EXPECT_FALSE(ready(promise));
    pass(OutputLog::PATIENCE / 2);
  }
};

TEST_F(OutputLogTest, LateReaderGetsEarlyBytes) {
  log.write(bytes("boot: first line\n"));
  OutputLog::Reader late(log);
  EXPECT_EQ(takeAll(late), "boot: first line\n");
}

TEST_F(OutputLogTest, EachReaderGetsEverythingOnce) {
  OutputLog::Reader first(log);
  log.write(bytes("one "));
  EXPECT_EQ(takeAll(first), "one ");
  OutputLog::Reader second(log);
  log.write(bytes("two"));
  EXPECT_EQ(takeAll(first), "two");
  EXPECT_EQ(takeAll(second), "one two");
}

TEST_F(OutputLogTest, LappedReaderIsToldHowMuchItMissed) {
  OutputLog::Reader reader(log);
  std::string text = noise(CAPACITY + 100);
  log.write(bytes(text));
  EXPECT_EQ(takeAll(reader), "\r\n[troupe: 100 bytes lost]\r\n" + text.substr(100));
  log.write(bytes("on"));
  EXPECT_EQ(takeAll(reader), "on");
}

TEST_F(OutputLogTest, ReaderLappedWhileItTookBytesMissesOnlyTheRest) {
  OutputLog::Reader reader(log);
  log.write(bytes(noise(100)));
  ASSERT_EQ(reader.next().size(), 100);
  std::string more = noise(CAPACITY + 50);
  log.write(bytes(more));  // a thread still writes the 100 bytes meanwhile
  reader.took(100);
  EXPECT_EQ(takeAll(reader), "\r\n[troupe: 50 bytes lost]\r\n" + more.substr(50));
}

TEST_F(OutputLogTest, LostLineMayBeTakenInPieces) {
  OutputLog::Reader reader(log);
  std::string text = noise(CAPACITY + 7);
  log.write(bytes(text));
  std::string all;
  for (auto piece = reader.next(); piece.size() > 0; piece = reader.next()) {
    all.push_back(static_cast<char>(piece[0]));
    reader.took(1);
  }
  EXPECT_EQ(all, "\r\n[troupe: 7 bytes lost]\r\n" + text.substr(7));
}

TEST_F(OutputLogTest, WhenMoreWaitsForAWrite) {
  OutputLog::Reader reader(log);
  auto more = reader.whenMore();
  EXPECT_FALSE(ready(more));
  log.write(bytes("x"));
  EXPECT_TRUE(ready(more));
  auto atOnce = reader.whenMore();
  EXPECT_TRUE(ready(atOnce));
}

TEST_F(OutputLogTest, NobodyReadingHoldsNobodyUp) {
  log.write(bytes(noise(10 * CAPACITY)));
  EXPECT_FALSE(log.congested());
}

TEST_F(OutputLogTest, SlowReaderHoldsTheWriterUpAndMissesNothing) {
  OutputLog::Reader reader(log);
  std::string text = noise(100 * CAPACITY);
  std::string got;
  size_t written = 0;
  while (written < text.size()) {
    auto clear = log.whenClear();
    while (!ready(clear)) {
      auto piece = reader.next();
      size_t size = std::min<size_t>(piece.size(), 100);
      got.append(reinterpret_cast<const char*>(piece.begin()), size);
      reader.took(size);
      pass(10 * kj::MILLISECONDS);
    }
    size_t size = std::min<size_t>(text.size() - written, 200);
    log.write(bytes(text).slice(written, written + size));
    written += size;
  }
  got += takeAll(reader);
  EXPECT_EQ(got, text);
}

TEST_F(OutputLogTest, StuckReaderHoldsTheWriterUpOnlyOnce) {
  OutputLog::Reader reader(log);
  log.write(bytes(noise(CAPACITY - 100)));
  ASSERT_TRUE(log.congested());
  auto clear = log.whenClear();
  EXPECT_FALSE(ready(clear));
  passPatience(clear);
  EXPECT_TRUE(ready(clear));
  log.write(bytes(noise(10 * CAPACITY)));
  EXPECT_FALSE(log.congested());
}

TEST_F(OutputLogTest, TricklingReaderCountsAsStuck) {
  OutputLog::Reader reader(log);
  log.write(bytes(noise(CAPACITY)));
  auto clear = log.whenClear();
  for (int i = 0; i < 10; ++i) {
    reader.next();
    reader.took(1);
    pass(OutputLog::PATIENCE / 10);
    ready(clear);
  }
  EXPECT_TRUE(ready(clear));
}

TEST_F(OutputLogTest, ReaderThatGoesOnIsWaitedForAgain) {
  OutputLog::Reader reader(log);
  log.write(bytes(noise(CAPACITY)));
  auto clear = log.whenClear();
  passPatience(clear);
  ASSERT_TRUE(ready(clear));
  takeAll(reader);
  log.write(bytes(noise(CAPACITY)));
  EXPECT_TRUE(log.congested());
}

TEST_F(OutputLogTest, LateReaderHoldsTheWriterUpOnlyOnceItTakesBytes) {
  log.write(bytes(noise(CAPACITY)));
  OutputLog::Reader late(log);
  EXPECT_FALSE(log.congested());
  takeAll(late);
  log.write(bytes(noise(CAPACITY)));
  EXPECT_TRUE(log.congested());
}

TEST_F(OutputLogTest, ReaderThatLeavesReleasesTheWriter) {
  auto reader = kj::heap<OutputLog::Reader>(log);
  log.write(bytes(noise(CAPACITY)));
  auto clear = log.whenClear();
  EXPECT_FALSE(ready(clear));
  reader = nullptr;
  EXPECT_TRUE(ready(clear));
}

TEST_F(OutputLogTest, DrainedWaitsForAReaderThatTakesBytes) {
  OutputLog::Reader reader(log);
  log.write(bytes(noise(20)));
  auto drained = log.drained(1 * kj::SECONDS);
  for (int i = 0; i < 10; ++i) {
    reader.took(1);
    pass(1 * kj::SECONDS);
    EXPECT_FALSE(ready(drained));
  }
  reader.took(10);
  EXPECT_TRUE(ready(drained));
}

TEST_F(OutputLogTest, DrainedGivesUpOnAReaderThatTakesNone) {
  OutputLog::Reader reader(log);
  log.write(bytes(noise(20)));
  auto drained = log.drained(1 * kj::SECONDS);
  EXPECT_FALSE(ready(drained));
  pass(1 * kj::SECONDS);
  EXPECT_TRUE(ready(drained));
}

TEST_F(OutputLogTest, DrainedIsReadyWithoutReaders) {
  log.write(bytes(noise(20)));
  auto drained = log.drained(1 * kj::SECONDS);
  EXPECT_TRUE(ready(drained));
}

}  // namespace
}  // namespace troupe::console
