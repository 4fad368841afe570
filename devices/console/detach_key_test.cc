#include "devices/console/detach_key.h"

#include <gtest/gtest.h>

#include <string>

namespace troupe::console {
namespace {

struct Outcome {
  std::string toGuest;
  bool detach;
};

Outcome type(DetachKey& key, std::string typed) {
  auto bytes = kj::arrayPtr(reinterpret_cast<kj::byte*>(&typed[0]), typed.size());
  auto result = key.filter(bytes);
  return {typed.substr(0, result.kept), result.detach};
}

TEST(DetachKey, PlainTextPassesUnchanged) {
  DetachKey key;
  Outcome outcome = type(key, "ls -l\r\x03\x1b");
  EXPECT_EQ(outcome.toGuest, "ls -l\r\x03\x1b");
  EXPECT_FALSE(outcome.detach);
  EXPECT_FALSE(key.pending());
}

TEST(DetachKey, OneKeyIsPendingAndNotSent) {
  DetachKey key;
  Outcome outcome = type(key, "a\x1d");
  EXPECT_EQ(outcome.toGuest, "a");
  EXPECT_FALSE(outcome.detach);
  EXPECT_TRUE(key.pending());
}

TEST(DetachKey, KeyTwiceSendsOne) {
  DetachKey key;
  Outcome outcome = type(key,
                         "a\x1d\x1d"
                         "b");
  EXPECT_EQ(outcome.toGuest,
            "a\x1d"
            "b");
  EXPECT_FALSE(outcome.detach);
  EXPECT_FALSE(key.pending());
}

TEST(DetachKey, KeyTwiceSplitOverReadsSendsOne) {
  DetachKey key;
  type(key, "\x1d");
  EXPECT_EQ(type(key, "\x1d").toGuest, "\x1d");
  EXPECT_FALSE(key.pending());
}

TEST(DetachKey, KeyThenAnotherByteDetachesAndSwallowsTheByte) {
  DetachKey key;
  Outcome outcome = type(key, "xy\x1dz");
  EXPECT_EQ(outcome.toGuest, "xy");
  EXPECT_TRUE(outcome.detach);
}

TEST(DetachKey, ThreeKeysSendOneAndStayPending) {
  DetachKey key;
  Outcome outcome = type(key, "\x1d\x1d\x1d");
  EXPECT_EQ(outcome.toGuest, "\x1d");
  EXPECT_FALSE(outcome.detach);
  EXPECT_TRUE(key.pending());
}

}  // namespace
}  // namespace troupe::console
