#include "devices/net/kept_state.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cstring>

namespace troupe::net {
namespace {

constexpr MacAddress OWN{{0x52, 0x54, 0, 0, 0, 1}};
constexpr MacAddress NEW{{0x52, 0x54, 0, 0, 0, 2}};

struct Memory {
  alignas(8) kj::byte bytes[KeptState::BYTES] = {};
  kj::ArrayPtr<kj::byte> all() { return bytes; }
};

DriverSaid initial() {
  DriverSaid said;
  said.mac = OWN;
  return said;
}

DriverSaid changed() {
  DriverSaid said;
  said.pairs = 3;
  said.offloads = 0x83;
  said.mac = NEW;
  said.filter.promiscuous = false;
  said.filter.noBroadcast = true;
  said.filter.unicast.count = 2;
  said.filter.unicast.addresses[1] = NEW;
  said.filter.multicast.overflows = true;
  return said;
}

TEST(KeptState, WithoutANoteItIsAsAtFirst) {
  Memory memory;
  auto said = KJ_ASSERT_NONNULL(KeptState(memory.all()).recall(initial()));
  EXPECT_EQ(said.pairs, 1);
  EXPECT_EQ(said.mac, OWN);
  EXPECT_TRUE(said.filter.promiscuous);
}

TEST(KeptState, AnotherProcessFindsTheLastNote) {
  Memory memory;
  {
    KeptState kept(memory.all());
    kept.note(initial());
    kept.note(changed());
  }
  auto said = KJ_ASSERT_NONNULL(KeptState(memory.all()).recall(initial()));
  EXPECT_EQ(said.pairs, 3);
  EXPECT_EQ(said.offloads, 0x83);
  EXPECT_EQ(said.mac, NEW);
  EXPECT_FALSE(said.filter.promiscuous);
  EXPECT_FALSE(said.filter.noUnicast);
  EXPECT_TRUE(said.filter.noBroadcast);
  EXPECT_EQ(said.filter.unicast.count, 2);
  EXPECT_EQ(said.filter.unicast.addresses[1], NEW);
  EXPECT_FALSE(said.filter.unicast.overflows);
  EXPECT_TRUE(said.filter.multicast.overflows);
}

TEST(KeptState, WhatAnEarlierDriverSaidIsForgotten) {
  Memory memory;
  KeptState kept(memory.all());
  kept.note(changed());
  kept.note(changed());
  kept.forget();
  EXPECT_EQ(KJ_ASSERT_NONNULL(kept.recall(initial())).pairs, 1);
  kept.note(changed());
  EXPECT_EQ(KJ_ASSERT_NONNULL(kept.recall(initial())).pairs, 3);
}

// A process may die between any two of its stores: here before the one that makes a note count.
TEST(KeptState, HalfANoteIsNone) {
  Memory memory;
  KeptState kept(memory.all());
  kept.note(changed());
  kj::byte current[8];
  memcpy(current, memory.bytes, sizeof(current));
  kept.note(initial());
  memcpy(memory.bytes, current, sizeof(current));
  EXPECT_EQ(KJ_ASSERT_NONNULL(kept.recall(initial())).pairs, 3);
}

// Whoever wrote it may have been hostile: whatever is there, what comes back is sound in itself.
TEST(KeptState, EveryByteMayBeAnything) {
  uint32_t refused = 0;
  for (size_t at = 0; at < KeptState::BYTES; at++) {
    for (kj::byte value : {0x00, 0x01, 0x41, 0xff}) {
      Memory memory;
      KeptState kept(memory.all());
      kept.note(changed());
      kept.note(changed());
      memory.bytes[at] = value;
      auto recalled = kept.recall(initial());
      KJ_IF_MAYBE (said, recalled) {
        EXPECT_GT(said->pairs, 0);
        EXPECT_FALSE(said->mac.isGroup() || said->mac.isZero());
        EXPECT_LE(said->filter.unicast.count, ReceiveFilter::MAX_ADDRESSES);
        EXPECT_LE(said->filter.multicast.count, ReceiveFilter::MAX_ADDRESSES);
      } else {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace troupe::net
