#include "broker/guest_ram.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/exception.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/memory_map.h"

namespace troupe::broker {
namespace {

UnplacedFds FDS;

TEST(RamRegions, LeaveTheHoleFree) {
  auto small = ramRegions(2 * MIB);
  ASSERT_EQ(small.size(), 1u);
  EXPECT_EQ(small[0].size, 2 * MIB);
  ASSERT_EQ(ramRegions(LOW_RAM_END).size(), 1u);

  auto large = ramRegions(LOW_RAM_END + 2 * MIB);
  ASSERT_EQ(large.size(), 2u);
  EXPECT_EQ(large[0].size, LOW_RAM_END);
  EXPECT_EQ(large[1].guestAddress, HIGH_RAM_START);
  EXPECT_EQ(large[1].fileOffset, LOW_RAM_END);
  EXPECT_EQ(large[1].size, 2 * MIB);
}

TEST(GuestRam, IsSealed) {
  GuestRam ram(2 * MIB, FDS);
  EXPECT_NE(ftruncate(ram.fd(), 4 * MIB), 0);
  EXPECT_NE(ftruncate(ram.fd(), 0), 0);
  EXPECT_NE(fcntl(ram.fd(), F_ADD_SEALS, F_SEAL_WRITE), 0);
}

TEST(GuestRam, GivesOnlyWhatOneRegionHolds) {
  GuestRam ram(4 * MIB, FDS);
  EXPECT_TRUE(ram.slice(0, 4 * MIB) != nullptr);
  EXPECT_TRUE(ram.slice(4 * MIB - 1, 1) != nullptr);
  EXPECT_TRUE(ram.slice(4 * MIB - 1, 2) == nullptr);
  EXPECT_TRUE(ram.slice(4 * MIB, 1) == nullptr);
  EXPECT_TRUE(ram.slice(1, ~0ull) == nullptr);
  EXPECT_TRUE(ram.slice(~0ull, 2) == nullptr);
  EXPECT_TRUE(ram.slice(0, 0) == nullptr);
}

TEST(GuestRam, TouchesNoPageOfItself) {
  GuestRam ram(64 * MIB, FDS);
  struct stat status;
  ASSERT_EQ(fstat(ram.fd(), &status), 0);
  EXPECT_EQ(status.st_blocks, 0);
}

TEST(GuestRam, RefusesMoreThanTheHostHas) {
  try {
    GuestRam ram(1ull << 50, FDS);
    FAIL() << "made 1 PiB of memory";
  } catch (const kj::Exception& e) {
    EXPECT_TRUE(e.getDescription().startsWith("TRP-host-101: ")) << e.getDescription().cStr();
  }
}

}  // namespace
}  // namespace troupe::broker
