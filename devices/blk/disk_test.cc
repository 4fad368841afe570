#include "devices/blk/disk.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <unistd.h>

#include <string>

#include "devices/blk/testing/scratch_disk.h"

namespace troupe::blk {
namespace {

using ::testing::HasSubstr;
using testing::isAvailable;
using testing::Medium;
using testing::ScratchDisk;

constexpr auto READ_WRITE = Disk::Access::READ_WRITE;
constexpr auto READ_ONLY = Disk::Access::READ_ONLY;

// What the attempt to use `fd` as a disk fails with; "" when it does not.
std::string refusal(int fd, Disk::Access access) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { Disk disk(fd, access); })) {
    return exception->getDescription().cStr();
  }
  return "";
}

TEST(Disk, CapacityIsTheFiles) {
  ScratchDisk file(Medium::MEMORY, 1 << 20);
  Disk disk(file.fd(), READ_WRITE);
  EXPECT_EQ(disk.shape().bytes, 1 << 20);
  EXPECT_EQ(disk.shape().blockBytes, 512);
  EXPECT_FALSE(disk.shape().readOnly);
}

TEST(Disk, AFileOfTmpfsIsServedFromMemory) {
  ScratchDisk file(Medium::MEMORY, 4096);
  EXPECT_EQ(Disk(file.fd(), READ_WRITE).backing(), Disk::Backing::MEMORY);
}

TEST(Disk, ODirectIsAskedOfTheFile) {
  if (!isAvailable(Medium::DIRECT)) GTEST_SKIP() << "/var/tmp is in memory";
  ScratchDisk cached(Medium::CACHED, 1 << 20);
  EXPECT_EQ(Disk(cached.fd(), READ_WRITE).backing(), Disk::Backing::CACHED);
  ScratchDisk direct(Medium::DIRECT, 1 << 20);
  Disk disk(direct.fd(), READ_WRITE);
  EXPECT_EQ(disk.backing(), Disk::Backing::DIRECT);
  EXPECT_TRUE(disk.shape().blockBytes == 512 || disk.shape().blockBytes == 4096);
}

TEST(Disk, EmptyFileIsRefused) {
  ScratchDisk file(Medium::MEMORY, 0);
  EXPECT_THAT(refusal(file.fd(), READ_WRITE), HasSubstr("TRP-blk-004"));
}

TEST(Disk, PartOfASectorIsRefused) {
  ScratchDisk file(Medium::MEMORY, 1000);
  EXPECT_THAT(refusal(file.fd(), READ_WRITE), HasSubstr("TRP-blk-004"));
}

TEST(Disk, APipeIsRefused) {
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC));
  kj::AutoCloseFd in(ends[0]), out(ends[1]);
  EXPECT_THAT(refusal(in, READ_ONLY), HasSubstr("TRP-blk-001"));
}

TEST(Disk, AFileOpenForReadingIsNoDiskToWrite) {
  ScratchDisk file(Medium::MEMORY, 4096);
  auto reading = file.openReadOnly();
  EXPECT_THAT(refusal(reading, READ_WRITE), HasSubstr("TRP-blk-003"));
  EXPECT_EQ(refusal(reading, READ_ONLY), "");
  EXPECT_EQ(refusal(file.fd(), READ_ONLY), "");  // the guest cannot write what the fd could
}

}  // namespace
}  // namespace troupe::blk
