#include "devices/console/replay_buffer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace troupe::console {
namespace {

kj::ArrayPtr<const kj::byte> bytes(const std::string& text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

std::string all(const ReplayBuffer& buffer) {
  std::string result;
  for (uint64_t position = buffer.begin(); position < buffer.end();) {
    auto piece = buffer.from(position);
    result.append(reinterpret_cast<const char*>(piece.begin()), piece.size());
    position += piece.size();
  }
  return result;
}

TEST(ReplayBuffer, EmptyAtFirst) {
  ReplayBuffer buffer(8);
  EXPECT_EQ(buffer.begin(), 0);
  EXPECT_EQ(buffer.end(), 0);
  EXPECT_EQ(buffer.from(0).size(), 0);
}

TEST(ReplayBuffer, KeepsTheLastBytes) {
  ReplayBuffer buffer(8);
  buffer.append(bytes("abcde"));
  EXPECT_EQ(all(buffer), "abcde");
  buffer.append(bytes("fghijk"));
  EXPECT_EQ(all(buffer), "defghijk");
  EXPECT_EQ(buffer.begin(), 3);
  EXPECT_EQ(buffer.end(), 11);
}

TEST(ReplayBuffer, OneAppendBeyondCapacityKeepsItsTail) {
  ReplayBuffer buffer(4);
  buffer.append(bytes("xy"));
  buffer.append(bytes("0123456789"));
  EXPECT_EQ(all(buffer), "6789");
  EXPECT_EQ(buffer.end(), 12);
}

TEST(ReplayBuffer, AnySequenceOfAppendsKeepsTheTailOfTheStream) {
  std::mt19937 random(1);
  for (size_t capacity : {1, 2, 7, 64, 100}) {
    ReplayBuffer buffer(capacity);
    std::string stream;
    for (int step = 0; step < 500; ++step) {
      std::string piece(random() % (2 * capacity + 3), 0);
      for (char& c : piece)
        c = static_cast<char>(random());
      buffer.append(bytes(piece));
      stream += piece;
      ASSERT_EQ(buffer.end(), stream.size());
      ASSERT_LE(buffer.end() - buffer.begin(), capacity);
      ASSERT_EQ(all(buffer), stream.substr(stream.size() - std::min(stream.size(), capacity)));
    }
  }
}

TEST(ReplayBuffer, RefusesPositionsItDoesNotHold) {
  ReplayBuffer buffer(4);
  buffer.append(bytes("abcdef"));
  EXPECT_ANY_THROW(buffer.from(1));
  EXPECT_ANY_THROW(buffer.from(7));
}

}  // namespace
}  // namespace troupe::console
