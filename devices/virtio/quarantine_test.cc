#include "devices/virtio/quarantine.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cstring>

namespace troupe::virtio {
namespace {

struct Fixture {
  kj::Array<kj::byte> memory = kj::heapArray<kj::byte>(3 * 4096 + 64);
  Fixture() { memset(memory.begin(), 0, memory.size()); }
};

QuarantinedRequest requestWith(uint64_t sequence) {
  return {sequence, 5, 1, 0, 2, 7};
}

void keep(Quarantine& quarantine, uint64_t sequence, kj::StringPtr text) {
  iovec pieces[] = {{const_cast<char*>(text.begin()), 2},
                    {const_cast<char*>(text.begin()) + 2, text.size() - 2}};
  quarantine.keep(requestWith(sequence), pieces);
}

TEST(Quarantine, KeepsTheBytesOfARequestForAnotherProcess) {
  Fixture f;
  {
    Quarantine writer(f.memory);
    keep(writer, 9, "hello");
  }
  Quarantine reader(f.memory);
  ASSERT_EQ(reader.count(), 1);
  auto kept = reader.read(0);
  ASSERT_TRUE(kept != nullptr);
  auto& found = KJ_ASSERT_NONNULL(kept);
  EXPECT_EQ(found.request.sequence, 9);
  EXPECT_EQ(found.request.head, 7);
  EXPECT_EQ(kj::heapString(found.bytes.asChars()), "hello");
}

TEST(Quarantine, KeepsTheFirstBytesOfALongRequest) {
  Fixture f;
  Quarantine quarantine(f.memory);
  auto text = kj::heapArray<char>(100000);
  memset(text.begin(), 'x', text.size());
  iovec piece{text.begin(), text.size()};
  quarantine.keep(requestWith(1), kj::arrayPtr(&piece, 1));
  EXPECT_EQ(KJ_ASSERT_NONNULL(quarantine.read(0)).bytes.size(), QuarantinedRequest::MOST_BYTES);
}

TEST(Quarantine, ForgetsTheOldestForTheNewest) {
  Fixture f;
  Quarantine quarantine(f.memory);
  ASSERT_EQ(quarantine.capacity(), 3);
  for (uint64_t i = 0; i < 5; i++)
    keep(quarantine, i, "abc");
  EXPECT_EQ(quarantine.count(), 5);
  EXPECT_TRUE(quarantine.read(1) == nullptr);
  EXPECT_EQ(KJ_ASSERT_NONNULL(quarantine.read(4)).request.sequence, 4);
  EXPECT_TRUE(quarantine.read(5) == nullptr);
}

TEST(Quarantine, BelievesNoLengthThatIsNotThere) {
  Fixture f;
  Quarantine quarantine(f.memory);
  keep(quarantine, 1, "abc");
  memset(f.memory.begin() + 64 + 8, 0xff, sizeof(QuarantinedRequest));
  EXPECT_TRUE(quarantine.read(0) == nullptr);
}

}  // namespace
}  // namespace troupe::virtio
