#include "devices/virtio/loop_pulse.h"

#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <kj/thread.h>
#include <unistd.h>

#include <atomic>

namespace troupe::virtio {
namespace {

using State = Sign::State;

Sign read(const uint64_t& word) {
  return {__atomic_load_n(&word, __ATOMIC_RELAXED)};
}

TEST(LoopPulse, SaysWhenTheLoopWaitsAndWhenItWorks) {
  uint64_t word = 0;
  Pulse pulse;
  pulse.showIn(word);
  showLoop(pulse);
  auto io = kj::setupAsyncIo();
  std::atomic<bool> hasWaited{false};
  // Ends the wait once it has seen it.
  kj::Thread other([&] {
    while (read(word).state() != State::WAITS) {
    }
    hasWaited = true;
  });
  State inside = State::NONE;
  Sign before = read(word);
  auto& timer = io.provider->getTimer();
  kj::Function<kj::Promise<void>()> turn = [&]() -> kj::Promise<void> {
    inside = read(word).state();
    if (hasWaited) return kj::READY_NOW;
    return timer.afterDelay(1 * kj::MILLISECONDS).then([&] { return turn(); });
  };
  turn().wait(io.waitScope);
  EXPECT_EQ(inside, State::WORKS);
  EXPECT_NE(read(word), before);

  // And so does each turn.
  before = read(word);
  timer.afterDelay(1 * kj::MILLISECONDS).wait(io.waitScope);
  EXPECT_NE(read(word), before);
  EXPECT_EQ(read(word).state(), State::WORKS);
}

}  // namespace
}  // namespace troupe::virtio
