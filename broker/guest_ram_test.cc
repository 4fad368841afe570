#include "broker/guest_ram.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/memory_map.h"
#include "sandbox/shared_memory.h"

namespace troupe::broker {
namespace {

sandbox::SharedMemory memoryOf(uint64_t bytes) {
  return sandbox::makeSharedMemory("guest-ram", bytes);
}

TEST(GuestRam, GivesOnlyWhatOneRegionHolds) {
  auto file = memoryOf(4 * MIB);
  GuestRam ram(4 * MIB, file.writable);
  EXPECT_TRUE(ram.slice(0, 4 * MIB) != nullptr);
  EXPECT_TRUE(ram.slice(4 * MIB - 1, 1) != nullptr);
  EXPECT_TRUE(ram.slice(4 * MIB - 1, 2) == nullptr);
  EXPECT_TRUE(ram.slice(4 * MIB, 1) == nullptr);
  EXPECT_TRUE(ram.slice(1, ~0ull) == nullptr);
  EXPECT_TRUE(ram.slice(~0ull, 2) == nullptr);
  EXPECT_TRUE(ram.slice(0, 0) == nullptr);
}

TEST(GuestRam, TouchesNoPageOfItself) {
  auto file = memoryOf(64 * MIB);
  GuestRam ram(64 * MIB, file.writable);
  struct stat status;
  ASSERT_EQ(fstat(file.writable, &status), 0);
  EXPECT_EQ(status.st_blocks, 0);
}

TEST(GuestRam, RefusesAFileOfAnotherSize) {
  auto file = memoryOf(4 * MIB);
  EXPECT_ANY_THROW(GuestRam(2 * MIB, file.writable));
  EXPECT_ANY_THROW(GuestRam(6 * MIB, file.writable));
}

// Whoever can shrink it can make the broker fault.
TEST(GuestRam, RefusesAFileThatIsNotSealed) {
  int fd = memfd_create("guest-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  kj::AutoCloseFd file(fd);
  ASSERT_EQ(ftruncate(file, 2 * MIB), 0);
  EXPECT_ANY_THROW(GuestRam(2 * MIB, file));
}

}  // namespace
}  // namespace troupe::broker
