#include "devices/console/input_queue.h"

#include <gtest/gtest.h>

#include <cstring>
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

// Whoever left it may have been hostile: whatever the words are, there is never more than fits.
TEST(InputQueue, BRK10_WhateverWasLeftItHoldsNoMoreThanItsCapacity) {
  constexpr size_t BEHIND = 32 << 10;
  std::mt19937_64 random(1);
  auto memory = kj::heapArray<kj::byte>(InputQueue::CAPACITY + BEHIND);
  const std::string text = noise(16384);
  for (int round = 0; round < 2000; round++) {
    memset(memory.begin(), 0, memory.size());
    auto number = [&](uint64_t near) -> uint64_t {
      switch (random() % 5) {
        case 0:
          return random() % 10000;
        case 1:
          return near - random() % 5000;
        case 2:
          return near + random() % 5000;
        case 3:
          return UINT64_MAX - random() % 3;
        default:
          return random();
      }
    };
    KeptInput kept;
    kept.end = number(4000);
    uint16_t index = random() % 3;
    for (uint64_t& word : kept.told)
      word = random() % 4 == 0 ? UINT64_MAX : number(kept.end) << 16 | random() % 3;
    InputQueue queue(kept, memory.slice(0, InputQueue::CAPACITY));
    auto fill = [&] {
      ASSERT_LE(queue.room(), InputQueue::CAPACITY);
      EXPECT_LE(queue.append(bytes(text)), InputQueue::CAPACITY);
      EXPECT_LE(queue.waiting().size(), InputQueue::CAPACITY);
    };
    fill();
    if (round % 2 == 0) {
      queue.goOn(index);
    } else {
      queue.begin();
    }
    fill();
    queue.took(queue.waiting().size());
    fill();
    for (size_t i = InputQueue::CAPACITY; i < memory.size(); i++)
      ASSERT_EQ(memory[i], 0) << "round " << round;
  }
}

}  // namespace
}  // namespace troupe::console
