#include "devices/virtio/vital_signs.h"

#include <gtest/gtest.h>

#include "devices/virtio/kept_memory.h"

namespace troupe::virtio {
namespace {

using State = Sign::State;

struct Memory {
  alignas(64) kj::byte bytes[VitalSigns::BYTES] = {};
};

TEST(VitalSigns, EachPlaceAndThreadHasItsOwnWord) {
  Memory memory;
  VitalSigns signs(memory.bytes, 0), others(memory.bytes, 1);
  for (uint32_t i = 0; i < VitalSigns::THREADS; i++) {
    signs.word(i) = 4 * i + 1;
    others.word(i) = 4 * (i + 100) + 2;
  }
  for (uint32_t i = 0; i < VitalSigns::THREADS; i++) {
    EXPECT_EQ(signs.sign(i).word, 4 * i + 1);
    EXPECT_EQ(others.sign(i).word, 4 * (i + 100) + 2);
  }
}

TEST(VitalSigns, AThreadIsKnownByTheEndOfItsName) {
  auto number = [](kj::StringPtr name) -> int {
    KJ_IF_MAYBE (n, VitalSigns::threadOf(name)) {
      return *n;
    }
    return -1;
  };
  EXPECT_EQ(number("blk-q0"), 1);
  EXPECT_EQ(number("net-q14"), 15);
  EXPECT_EQ(number("port-io8"), 9);
  EXPECT_EQ(number("x-q30"), 31);
  // Others', the kernel's among them, and what has no word.
  for (auto name : {"", "-", "troupe-blk", "blk-q", "blkq0", "q0", "iou-wrk-12", "iou-sqp-5",
                    "blk-q31", "blk-q99", "blk-q000000000000000000001", "-0", "blk-Q0", "blk-q0 "})
    EXPECT_EQ(number(name), -1) << name;
}

TEST(Pulse, BeatsWhereItIsShownAndNowhereBefore) {
  Memory memory;
  VitalSigns signs(memory.bytes, 1);
  Pulse pulse;
  pulse.beat();
  EXPECT_EQ(signs.sign(3).state(), State::NONE);
  pulse.showIn(signs.word(3));
  EXPECT_EQ(signs.sign(3).state(), State::WORKS);
  Sign before = signs.sign(3);
  pulse.beat();
  EXPECT_NE(signs.sign(3), before);
  EXPECT_EQ(signs.sign(3).state(), State::WORKS);
}

TEST(Pulse, ChangesWithEachStepAndEachState) {
  uint64_t word = 0;
  Pulse pulse;
  pulse.showIn(word);
  Sign last{word};
  for (auto state : {State::WAITS, State::WORKS, State::WAITS, State::WORKS, State::LABOURS,
                     State::WORKS, State::WORKS}) {
    pulse.become(state);
    EXPECT_NE(Sign{word}, last);
    EXPECT_EQ(Sign{word}.state(), state);
    last = Sign{word};
    pulse.beat();
    EXPECT_NE(Sign{word}, last);
    EXPECT_EQ(Sign{word}.state(), state);
    last = Sign{word};
  }
}

// Of what a process before it left there, which may have been hostile, nothing counts.
TEST(Pulse, BeginsAnewWhateverStandsThere) {
  uint64_t word = ~uint64_t{0};
  Pulse pulse;
  pulse.showIn(word);
  EXPECT_EQ(Sign{word}.state(), State::WORKS);
  pulse.beat();
  EXPECT_EQ(Sign{word}.state(), State::WORKS);
}

}  // namespace
}  // namespace troupe::virtio
