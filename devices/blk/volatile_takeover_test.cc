// A volatile disk whose process ends, and the process that finds what was written to it.
#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "devices/blk/kept_file.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/blk/testing/scratch_disk.h"
#include "devices/blk/volatile_disk.h"

namespace troupe::blk {
namespace {

using testing::filled;
using testing::makeMemory;
using testing::Medium;
using testing::ScratchDisk;
using testing::sectors;

constexpr uint64_t MIB = 1 << 20;
constexpr uint32_t BLOCK = 4096;

uint64_t memoryOf(int fd) {
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info));
  return info.st_blocks * 512;
}

// Processes of one disk; what they share outlives each of them.
struct Processes {
  explicit Processes(uint64_t mostBytes = 64 * MIB)
      : file(Medium::MEMORY, 4 * MIB),
        base(file.openReadOnly()),
        below(base, Disk::Access::READ_ONLY),
        memory(makeMemory(file.size())),
        kept(makeMemory(BLOCK)),
        mostBytes(mostBytes),
        belowFile(below) {
    next();
  }
  void next() {
    disk = nullptr;
    mapped = kj::heap<KeptFile>(kept);
    disk = kj::heap<VolatileDisk>(memory, below, nullptr, mostBytes, *mapped);
    disk->takeOver();
  }
  int64_t write(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes) {
    iovec piece{const_cast<kj::byte*>(bytes.begin()), bytes.size()};
    return disk->write(kj::arrayPtr(&piece, 1), offset);
  }
  kj::Array<kj::byte> read(uint64_t offset, size_t bytes) {
    auto all = kj::heapArray<kj::byte>(bytes);
    for (size_t done = 0; done < bytes;) {
      auto run = disk->locate(offset + done, bytes - done);
      iovec piece{all.begin() + done, run.bytes};
      int64_t got = run.isWritten ? disk->read(kj::arrayPtr(&piece, 1), offset + done)
                                  : belowFile.read(kj::arrayPtr(&piece, 1), offset + done);
      KJ_ASSERT(got == int64_t(run.bytes), got, run.bytes);
      done += got;
    }
    return all;
  }

  ScratchDisk file;
  kj::AutoCloseFd base;
  Disk below;
  kj::AutoCloseFd memory;
  kj::AutoCloseFd kept;
  const uint64_t mostBytes;
  DiskFile belowFile;
  kj::Own<KeptFile> mapped;
  kj::Own<VolatileDisk> disk;
};

TEST(VolatileTakeover, WhatWasWrittenIsFoundAgain) {
  Processes disk;
  EXPECT_EQ(disk.write(512, filled(512, 0x11)), 512);
  EXPECT_EQ(disk.write(MIB, filled(3 * BLOCK, 0x22)), 3 * BLOCK);
  EXPECT_EQ(disk.disk->change(DiskIo::Change::DISCARD, MIB + BLOCK, BLOCK), BLOCK);
  EXPECT_EQ(disk.disk->change(DiskIo::Change::ZERO, 2 * MIB, 2 * BLOCK), 2 * BLOCK);
  auto before = disk.read(0, 4 * MIB);
  uint64_t held = disk.disk->heldBytes();
  for (int i = 0; i < 3; i++) {
    disk.next();
    EXPECT_TRUE(disk.read(0, 4 * MIB) == before);
    EXPECT_EQ(disk.disk->heldBytes(), held);
  }
  EXPECT_EQ(disk.write(1024, filled(512, 0x33)), 512);
  disk.next();
  EXPECT_TRUE(disk.read(512, 512) == filled(512, 0x11));
  EXPECT_TRUE(disk.read(1024, 512) == filled(512, 0x33));
  EXPECT_TRUE(disk.read(1536, 512) == sectors(3, 1));
}

// Bytes that a write left in memory before it could say so.
TEST(VolatileTakeover, OfAWriteThatWasCutNothingIsSeen) {
  for (int kind = 0; kind < 3; kind++) {
    Processes disk;
    auto cut = filled(BLOCK, 0x77);
    KJ_SYSCALL(pwrite(disk.memory, cut.begin(), cut.size(), MIB));
    disk.next();
    EXPECT_TRUE(disk.read(MIB, BLOCK) == sectors(MIB / 512, 8));
    if (kind == 0) {
      EXPECT_EQ(disk.write(MIB + 512, filled(512, 0x11)), 512);
      EXPECT_TRUE(disk.read(MIB, 512) == sectors(MIB / 512, 1));
      EXPECT_TRUE(disk.read(MIB + 1024, 3072) == sectors(MIB / 512 + 2, 6));
    } else {
      auto change = kind == 1 ? DiskIo::Change::DISCARD : DiskIo::Change::ZERO;
      EXPECT_EQ(disk.disk->change(change, MIB, BLOCK), BLOCK);
      EXPECT_TRUE(disk.read(MIB, BLOCK) == filled(BLOCK, 0));
    }
  }
}

TEST(VolatileTakeover, MemoryThatNobodySaysIsHeldCountsAllTheSame) {
  Processes disk(8 * BLOCK);
  auto hoard = filled(8 * BLOCK, 0x77);
  KJ_SYSCALL(pwrite(disk.memory, hoard.begin(), hoard.size(), 0));
  disk.next();
  EXPECT_EQ(disk.write(MIB, filled(BLOCK, 0x11)), -ENOSPC);
}

TEST(VolatileTakeover, BitsThatContradictEachOtherHarmNobody) {
  Processes disk;
  auto all = filled(BLOCK, 0xff);
  uint64_t bits = ClusterBits::bytesFor(4 * MIB / BLOCK + 1);
  // Held, and not written.
  KJ_SYSCALL(pwrite(disk.kept, all.begin(), bits, bits));
  disk.next();
  EXPECT_TRUE(disk.read(0, 4 * MIB) == sectors(0, 8192));
  EXPECT_EQ(disk.write(512, filled(512, 0x11)), 512);
  EXPECT_TRUE(disk.read(0, 512) == sectors(0, 1));
  EXPECT_TRUE(disk.read(512, 512) == filled(512, 0x11));
  // All of it written: the guest reads what is in its memory, and no more than that.
  KJ_SYSCALL(pwrite(disk.kept, all.begin(), all.size(), 0));
  disk.next();
  EXPECT_TRUE(disk.read(MIB, 3 * MIB) == filled(3 * MIB, 0));
}

TEST(VolatileTakeover, WhatIsKeptIsMemoryWhereSomethingWasWrittenAlone) {
  constexpr uint64_t LARGE = 1ull << 40;
  ScratchDisk file(Medium::MEMORY, 0);
  KJ_SYSCALL(ftruncate(file.fd(), LARGE));
  auto base = file.openReadOnly();
  Disk below(base, Disk::Access::READ_ONLY);
  auto memory = makeMemory(LARGE);
  auto kept = makeMemory(2 * ClusterBits::bytesFor(LARGE / BLOCK + 1) + BLOCK);
  for (int i = 0; i < 2; i++) {
    KeptFile mapped(kept);
    VolatileDisk disk(memory, below, nullptr, 64 * MIB, mapped);
    disk.takeOver();
    // A bit of each page of bits is looked at.
    for (uint64_t at = 0; at < LARGE; at += LARGE / 8192)
      disk.locate(at, BLOCK);
    if (i == 0) {
      EXPECT_EQ(memoryOf(kept), 0u);
      auto bytes = filled(BLOCK, 0x11);
      iovec piece{bytes.begin(), bytes.size()};
      EXPECT_EQ(disk.write(kj::arrayPtr(&piece, 1), LARGE / 2), BLOCK);
    } else {
      EXPECT_TRUE(disk.locate(LARGE / 2, BLOCK).isWritten);
    }
    EXPECT_LE(memoryOf(kept), 2 * BLOCK);
  }
}

}  // namespace
}  // namespace troupe::blk
