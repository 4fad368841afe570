#include "devices/blk/image_disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/qcow2/new_image.h"

// An image that two processes have open, one after the other and for a while both.
namespace troupe::blk {
namespace {

constexpr uint64_t DISK_BYTES = 8 << 20;
constexpr uint64_t KEPT_BYTES = BlkConfig::MAPPING_JOURNAL_BYTES;
constexpr size_t BLOCK = 4096;

kj::AutoCloseFd makeFile() {
  int fd;
  KJ_SYSCALL(fd = memfd_create("image", MFD_CLOEXEC));
  return kj::AutoCloseFd(fd);
}

struct Bench {
  Bench() {
    Disk empty(file, Disk::Access::READ_WRITE, builtInRingRules(), Disk::Contents::IMAGE);
    DiskFile whole(empty);
    qcow2::makeImage(whole, {DISK_BYTES, 16, false, ""_kj, ""_kj});
  }
  kj::Array<kj::byte> bytes() {
    auto all = kj::heapArray<kj::byte>(lseek(file, 0, SEEK_END));
    KJ_ASSERT(pread(file, all.begin(), all.size(), 0) == ssize_t(all.size()));
    return all;
  }

  kj::AutoCloseFd file = makeFile();
  kj::Array<uint64_t> kept = kj::heapArray<uint64_t>(KEPT_BYTES / 8);
};

// What one process has of it.
struct Process {
  Process(Bench& bench, ImageDisk::Owner owner)
      : disk(bench.file, Disk::Access::READ_WRITE, builtInRingRules(), Disk::Contents::IMAGE),
        image(disk, "image"_kj, nullptr, bench.kept.asBytes(), owner) {}

  void write(uint64_t offset, char value) {
    char block[BLOCK];
    memset(block, value, BLOCK);
    iovec piece{block, BLOCK};
    EXPECT_EQ(image.image().write(kj::arrayPtr(&piece, 1), offset), int64_t(BLOCK));
  }
  // Every byte of the block, if they are alike.
  int read(uint64_t offset) {
    char block[BLOCK];
    iovec piece{block, BLOCK};
    if (image.image().prepare(offset) != 0) return -1;
    auto extent = image.image().locate(offset, BLOCK);
    if (extent.kind == qcow2::Extent::Kind::ZEROES) return 0;
    if (image.file(0).read(kj::arrayPtr(&piece, 1), extent.offset) != int64_t(BLOCK)) return -1;
    for (char byte : block) {
      if (byte != block[0]) return -1;
    }
    return block[0];
  }

  Disk disk;
  ImageDisk image;
};

TEST(ImageDisk, ASuccessorChangesNothingBeforeItsTurnAndThenHasWhatWasNeverFlushed) {
  Bench bench;
  memset(bench.kept.begin(), 0, KEPT_BYTES);
  auto first = kj::heap<Process>(bench, ImageDisk::Owner::THIS_PROCESS);
  first->write(0, 'a');
  auto file = bench.bytes();
  auto kept = kj::heapArray<uint64_t>(bench.kept.asPtr());

  Process next(bench, ImageDisk::Owner::ONE_BEFORE);
  EXPECT_EQ(next.image.shape().bytes, DISK_BYTES);
  EXPECT_FALSE(next.image.shape().readOnly);
  EXPECT_EQ(next.image.clusterBytes(), 1u << 16);
  EXPECT_EQ(bench.bytes(), file);
  EXPECT_EQ(memcmp(bench.kept.begin(), kept.begin(), KEPT_BYTES), 0);

  // The one before goes on, and its file becomes longer.
  first->write(1 << 20, 'b');
  first->write(4 << 20, 'c');
  first = nullptr;  // without a flush
  next.disk.askAgain();
  next.image.takeOver();
  EXPECT_EQ(next.read(0), 'a');
  EXPECT_EQ(next.read(1 << 20), 'b');
  EXPECT_EQ(next.read(4 << 20), 'c');
  EXPECT_EQ(next.read(2 << 20), 0);
  next.write(2 << 20, 'd');
  EXPECT_EQ(next.read(2 << 20), 'd');
}

TEST(ImageDisk, ASuccessorHasTheSizeThatTheImageGrewTo) {
  Bench bench;
  memset(bench.kept.begin(), 0, KEPT_BYTES);
  auto first = kj::heap<Process>(bench, ImageDisk::Owner::THIS_PROCESS);
  Process next(bench, ImageDisk::Owner::ONE_BEFORE);
  EXPECT_EQ(first->image.grow(2 * DISK_BYTES), 0);
  first = nullptr;
  next.disk.askAgain();
  next.image.takeOver();
  EXPECT_EQ(next.image.shape().bytes, 2 * DISK_BYTES);
}

// A process that was taken over can leave anything.
TEST(ImageDisk, NonsenseThatIsLeftIsRefusedWhenItIsLookedAt) {
  Bench bench;
  memset(bench.kept.begin(), 0, KEPT_BYTES);
  Process next(bench, ImageDisk::Owner::ONE_BEFORE);
  memset(bench.kept.begin(), 0xff, KEPT_BYTES);
  EXPECT_ANY_THROW(next.image.takeOver());
}

}  // namespace
}  // namespace troupe::blk
