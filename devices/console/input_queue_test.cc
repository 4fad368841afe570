#include "devices/console/input_queue.h"

#include <gtest/gtest.h>

#include <random>

#include "devices/console/testing/loop.h"

namespace troupe::console {
namespace {

using testing::bytes;
using testing::noise;

TEST(InputQueue, KeepsOrderAndNeverHoldsMoreThanItsCapacity) {
  InputQueue queue;
  std::mt19937 random(1);
  std::string text = noise(100000);
  std::string got;
  size_t sent = 0;
  while (got.size() < text.size()) {
    size_t offer = std::min<size_t>(random() % 6000, text.size() - sent);
    sent += queue.append(bytes(text).slice(sent, sent + offer));
    auto waiting = queue.waiting();
    ASSERT_LE(waiting.size(), InputQueue::CAPACITY);
    size_t take = std::min<size_t>(random() % 5000, waiting.size());
    got.append(reinterpret_cast<const char*>(waiting.begin()), take);
    queue.took(take);
  }
  EXPECT_EQ(got, text);
}

TEST(InputQueue, FullQueueTakesNothing) {
  InputQueue queue;
  EXPECT_EQ(queue.append(bytes(noise(5000))), InputQueue::CAPACITY);
  EXPECT_EQ(queue.room(), 0);
  EXPECT_EQ(queue.append(bytes("x")), 0);
}

TEST(InputQueue, WhenRoomWaitsForTaking) {
  testing::Loop loop;
  InputQueue queue;
  queue.append(bytes(noise(InputQueue::CAPACITY)));
  auto room = queue.whenRoom();
  EXPECT_FALSE(room.poll(loop.io.waitScope));
  queue.took(1);
  EXPECT_TRUE(room.poll(loop.io.waitScope));
}

TEST(InputQueue, WhenInputWaitsForAppending) {
  testing::Loop loop;
  InputQueue queue;
  auto input = queue.whenInput();
  EXPECT_FALSE(input.poll(loop.io.waitScope));
  queue.append(bytes("x"));
  EXPECT_TRUE(input.poll(loop.io.waitScope));
}

}  // namespace
}  // namespace troupe::console
