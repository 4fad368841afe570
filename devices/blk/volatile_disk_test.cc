#include "devices/blk/volatile_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/thread.h>
#include <kj/vector.h>
#include <sys/stat.h>

#include <cstring>
#include <random>

#include "devices/blk/testing/any_medium.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/blk/testing/scratch_disk.h"

namespace troupe::blk {
namespace {

using testing::BlkBench;
using testing::filled;
using testing::makeMemory;
using testing::Medium;
using testing::ScratchDisk;
using testing::sectors;

constexpr uint64_t MIB = 1 << 20;
constexpr uint32_t BLOCK = 4096;
constexpr uint64_t PLENTY = 64 * MIB;

bool isZero(kj::ArrayPtr<const kj::byte> bytes) {
  for (kj::byte byte : bytes) {
    if (byte != 0) return false;
  }
  return true;
}

// One volatile disk above a raw file, as a queue's thread uses it.
struct Bench {
  explicit Bench(const ScratchDisk& file, uint64_t mostBytes = PLENTY)
      : base(file.openReadOnly()),
        below(base, Disk::Access::READ_ONLY),
        memory(makeMemory(file.size())),
        disk(memory, below, nullptr, mostBytes),
        belowFile(below) {}

  int64_t write(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes) {
    iovec piece{const_cast<kj::byte*>(bytes.begin()), bytes.size()};
    return disk.write(kj::arrayPtr(&piece, 1), offset);
  }
  kj::Array<kj::byte> read(uint64_t offset, size_t bytes) {
    auto all = kj::heapArray<kj::byte>(bytes);
    for (size_t done = 0; done < bytes;) {
      auto run = disk.locate(offset + done, bytes - done);
      iovec piece{all.begin() + done, run.bytes};
      int64_t got = run.isWritten ? disk.read(kj::arrayPtr(&piece, 1), offset + done)
                                  : belowFile.read(kj::arrayPtr(&piece, 1), offset + done);
      KJ_ASSERT(got == int64_t(run.bytes), got, run.bytes);
      done += got;
    }
    return all;
  }
  uint64_t memoryInUse() {
    struct stat info;
    KJ_SYSCALL(fstat(memory, &info));
    return info.st_blocks * 512;
  }

  kj::AutoCloseFd base;
  Disk below;
  kj::AutoCloseFd memory;
  VolatileDisk disk;
  DiskFile belowFile;
};

TEST(ClusterBits, RunsEndWhereTheValueChanges) {
  ClusterBits bits(1000);
  bits.set(60, 10);
  bits.set(128, 64);
  EXPECT_EQ(bits.run(0, 1000, false), 60u);
  EXPECT_EQ(bits.run(60, 1000 - 60, true), 10u);
  EXPECT_EQ(bits.run(60, 3, true), 3u);
  EXPECT_EQ(bits.run(70, 500, false), 58u);
  EXPECT_EQ(bits.run(128, 500, true), 64u);
  EXPECT_EQ(bits.run(192, 808, false), 808u);
  EXPECT_EQ(bits.run(60, 10, false), 1u) << "the first one changed since it was tested";
  EXPECT_EQ(bits.countOf(0, 1000), 74u);
  EXPECT_EQ(bits.countOf(69, 60), 2u);
  bits.clear(61, 100);
  EXPECT_EQ(bits.countOf(0, 1000), 32u);
  EXPECT_FALSE(bits.test(61));
  EXPECT_TRUE(bits.test(60));
}

TEST(VolatileDisk, WhatAWriteDoesNotCoverIsThatOfTheDiskBelow) {
  ScratchDisk file(Medium::MEMORY, MIB);
  Bench bench(file);
  EXPECT_EQ(bench.write(3 * 512, filled(512, 0x11)), 512);
  EXPECT_TRUE(bench.read(0, 3 * 512) == sectors(0, 3));
  EXPECT_TRUE(bench.read(3 * 512, 512) == filled(512, 0x11));
  EXPECT_TRUE(bench.read(4 * 512, 12 * 512) == sectors(4, 12));
  EXPECT_EQ(bench.write(7 * 512, filled(10 * 512, 0x22)), 10 * 512);
  EXPECT_TRUE(bench.read(4 * 512, 3 * 512) == sectors(4, 3));
  EXPECT_TRUE(bench.read(7 * 512, 10 * 512) == filled(10 * 512, 0x22));
  EXPECT_TRUE(bench.read(17 * 512, 20 * 512) == sectors(17, 20));
  EXPECT_TRUE(file.contents(0, MIB) == sectors(0, 2048));
}

TEST(VolatileDisk, ADiskMayEndInTheMiddleOfACluster) {
  ScratchDisk file(Medium::MEMORY, BLOCK + 3 * 512);
  Bench bench(file);
  EXPECT_EQ(bench.write(BLOCK + 512, filled(512, 0x11)), 512);
  EXPECT_TRUE(bench.read(BLOCK, 512) == sectors(8, 1));
  EXPECT_TRUE(bench.read(BLOCK + 2 * 512, 512) == sectors(10, 1));
  EXPECT_EQ(bench.disk.change(DiskIo::Change::ZERO, 512, BLOCK + 2 * 512), BLOCK + 2 * 512);
  EXPECT_TRUE(bench.read(0, 512) == sectors(0, 1));
  EXPECT_TRUE(isZero(bench.read(512, BLOCK + 2 * 512)));
  EXPECT_EQ(bench.disk.heldBytes(), BLOCK);
}

TEST(VolatileDisk, DiscardsAndZeroesGiveMemoryBack) {
  ScratchDisk file(Medium::MEMORY, 4 * MIB);
  Bench bench(file);
  EXPECT_EQ(bench.write(0, filled(2 * MIB, 0x11)), int64_t(2 * MIB));
  EXPECT_EQ(bench.disk.heldBytes(), 2 * MIB);
  EXPECT_EQ(bench.memoryInUse(), 2 * MIB);
  EXPECT_EQ(bench.disk.change(DiskIo::Change::DISCARD, BLOCK, MIB), int64_t(MIB));
  EXPECT_EQ(bench.disk.heldBytes(), MIB);
  EXPECT_EQ(bench.disk.change(DiskIo::Change::ZERO_KEEPING_PLACE, 0, 2 * MIB), int64_t(2 * MIB));
  EXPECT_EQ(bench.disk.heldBytes(), 0u);
  EXPECT_EQ(bench.memoryInUse(), 0u);
  EXPECT_TRUE(isZero(bench.read(0, 2 * MIB)));
  // Also what was never written; it takes no memory, and what is written there later does not bring
  // the disk's old bytes back.
  EXPECT_EQ(bench.disk.change(DiskIo::Change::ZERO, 3 * MIB, MIB), int64_t(MIB));
  EXPECT_EQ(bench.write(3 * MIB + 512, filled(512, 0x22)), 512);
  EXPECT_TRUE(isZero(bench.read(3 * MIB, 512)));
  EXPECT_TRUE(isZero(bench.read(3 * MIB + 1024, MIB - 1024)));
  EXPECT_EQ(bench.memoryInUse(), BLOCK);
}

TEST(VolatileDisk, MoreThanItsMemoryIsRefusedAndWhatIsThereStays) {
  ScratchDisk file(Medium::MEMORY, MIB);
  Bench bench(file, 64 << 10);
  EXPECT_EQ(bench.write(0, filled(64 << 10, 0x11)), 64 << 10);
  EXPECT_EQ(bench.write(64 << 10, filled(512, 0x22)), -ENOSPC);
  EXPECT_TRUE(bench.read(0, 64 << 10) == filled(64 << 10, 0x11));
  EXPECT_TRUE(bench.read(64 << 10, BLOCK) == sectors(128, 8));
  EXPECT_EQ(bench.write(BLOCK, filled(BLOCK, 0x33)), BLOCK) << "what has its memory can be written";
  EXPECT_EQ(bench.disk.change(DiskIo::Change::DISCARD, 0, BLOCK), BLOCK);
  EXPECT_EQ(bench.write(64 << 10, filled(512, 0x22)), 512) << "and what was given back is there";
}

TEST(VolatileDisk, AnErrorOfTheDiskBelowIsThatOfAWriteThatNeedsItsBytes) {
  ScratchDisk file(Medium::CACHED, MIB);
  Bench bench(file);
  file.truncate(512 << 10);  // behind its back
  EXPECT_EQ(bench.write(600 << 10, filled(512, 0x11)), -EIO);
  EXPECT_EQ(bench.disk.heldBytes(), 0u);
  EXPECT_EQ(bench.write(600 << 10, filled(BLOCK, 0x11)), BLOCK) << "this one needs none";
  EXPECT_TRUE(bench.read(600 << 10, BLOCK) == filled(BLOCK, 0x11));
}

class VolatileOnAnyMedium: public testing::OnAnyMedium {};
INSTANTIATE_ON_ANY_MEDIUM(VolatileOnAnyMedium);

// Requests of all kinds and sizes against the same bytes in an array.
TEST_P(VolatileOnAnyMedium, BehavesAsTheModelAndTheFileStaysAsItIs) {
  constexpr uint64_t SIZE = 2 * MIB + BLOCK;
  ScratchDisk file(GetParam(), SIZE);
  struct stat before, after;
  KJ_SYSCALL(fstat(file.fd(), &before));
  {
    Bench bench(file);
    auto model = sectors(0, SIZE / 512);
    std::mt19937_64 random(7);
    uint64_t unit = bench.disk.shape().blockBytes;
    for (int i = 0; i < 3000; i++) {
      uint64_t most = random() % 8 == 0 ? 256 << 10 : 12 << 10;
      uint64_t offset = random() % (SIZE / unit) * unit;
      uint64_t bytes = kj::min(random() % (most / unit) * unit + unit, SIZE - offset);
      auto place = model.slice(offset, offset + bytes);
      switch (random() % 8) {
        case 0:
          ASSERT_EQ(bench.disk.change(DiskIo::Change::ZERO, offset, bytes), int64_t(bytes));
          memset(place.begin(), 0, bytes);
          break;
        case 1: {
          ASSERT_EQ(bench.disk.change(DiskIo::Change::DISCARD, offset, bytes), int64_t(bytes));
          // What it did to a part of a cluster is not said: nothing.
          uint64_t from = (offset + BLOCK - 1) / BLOCK * BLOCK;
          uint64_t to = offset + bytes == SIZE ? SIZE : (offset + bytes) / BLOCK * BLOCK;
          if (to > from) memset(model.begin() + from, 0, to - from);
          break;
        }
        case 2:
        case 3:
        case 4:
          ASSERT_TRUE(bench.read(offset, bytes) == place) << i;
          break;
        default: {
          auto data = filled(bytes, random());
          ASSERT_EQ(bench.write(offset, data), int64_t(bytes));
          memcpy(place.begin(), data.begin(), bytes);
        }
      }
    }
    EXPECT_TRUE(bench.read(0, SIZE) == model);
    EXPECT_EQ(bench.disk.heldBytes(), bench.memoryInUse());
  }
  KJ_SYSCALL(fstat(file.fd(), &after));
  EXPECT_TRUE(file.contents(0, SIZE) == sectors(0, SIZE / 512));
  EXPECT_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
  EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
}

// Each thread has its own sectors of every cluster, so each cluster is begun by many at once.
TEST(VolatileDisk, ManyThreadsBeginTheSameClustersAndLoseNothing) {
  constexpr int THREADS = 8;
  constexpr uint64_t CLUSTERS = 400;
  ScratchDisk file(Medium::CACHED, CLUSTERS * BLOCK);
  Bench bench(file);
  std::atomic<int> wrong{0};
  {
    kj::Vector<kj::Own<kj::Thread>> threads;
    for (int t = 0; t < THREADS - 1; t++) {  // the last sector of each stays as it was
      threads.add(kj::heap<kj::Thread>([&, t] {
        for (uint64_t cluster = 0; cluster < CLUSTERS; cluster++) {
          uint64_t offset = cluster * BLOCK + t * 512;
          auto data = filled(512, cluster * THREADS + t);
          if (bench.write(offset, data) != 512) ++wrong;
          if (bench.read(offset, 512) != data) ++wrong;
        }
      }));
    }
  }
  EXPECT_EQ(wrong, 0);
  for (uint64_t cluster = 0; cluster < CLUSTERS; cluster++) {
    for (int t = 0; t < THREADS - 1; t++) {
      ASSERT_TRUE(bench.read(cluster * BLOCK + t * 512, 512) == filled(512, cluster * THREADS + t));
    }
    ASSERT_TRUE(bench.read(cluster * BLOCK + 7 * 512, 512) == sectors(cluster * 8 + 7, 1));
  }
}

TEST(VolatileDisk, ManyThreadsWriteAndClearWithoutLosingCountOfMemory) {
  constexpr int THREADS = 4;
  ScratchDisk file(Medium::MEMORY, 8 * MIB);
  Bench bench(file);
  std::atomic<int> wrong{0};
  {
    kj::Vector<kj::Own<kj::Thread>> threads;
    for (int t = 0; t < THREADS; t++) {
      threads.add(kj::heap<kj::Thread>([&, t] {
        std::mt19937_64 random(t);
        for (int i = 0; i < 2000; i++) {
          // Every fourth cluster is this thread's.
          uint64_t offset = (random() % 512 * THREADS + t) * BLOCK;
          auto data = filled(BLOCK, random() | 1);
          bool clears = random() % 2;
          if (bench.write(offset, data) != BLOCK) ++wrong;
          if (clears && bench.disk.change(DiskIo::Change::DISCARD, offset, BLOCK) != BLOCK) ++wrong;
          if (clears) memset(data.begin(), 0, BLOCK);
          if (bench.read(offset, BLOCK) != data) ++wrong;
        }
      }));
    }
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(bench.disk.heldBytes(), bench.memoryInUse());
}

BlkBench::Options volatileOptions(uint16_t queues = 1) {
  BlkBench::Options options;
  options.access = Disk::Access::READ_ONLY;
  options.volatileBytes = PLENTY;
  options.queues = queues;
  return options;
}

TEST_P(VolatileOnAnyMedium, AGuestReadsWhatItWroteAndTheFileStaysAsItIs) {
  ScratchDisk file(GetParam(), 4 * MIB);
  file.dropCache();
  auto readOnly = file.openReadOnly();
  int flags = GetParam() == Medium::DIRECT ? O_DIRECT : 0;
  KJ_SYSCALL(fcntl(readOnly, F_SETFL, flags));
  BlkBench bench(readOnly, volatileOptions(2));
  for (uint16_t queue = 0; queue < 2; queue++) {
    uint64_t sector = 1024 * (queue + 1);
    auto data = filled(2 * BLOCK, 0x11 * (queue + 1));
    EXPECT_EQ(bench.wait(bench.sendWrite(sector, data, queue), queue).status, virtio::BLK_S_OK);
    EXPECT_EQ(bench.wait(bench.sendFlush(queue), queue).status, virtio::BLK_S_OK);
    // Runs of both: the disk's, what was written, the disk's.
    auto sent = bench.sendRead(sector - 64, 64 << 10, 1 - queue);
    EXPECT_EQ(bench.wait(sent, 1 - queue).status, virtio::BLK_S_OK);
    auto got = bench.data(sent, 64 << 10);
    EXPECT_TRUE(got.slice(0, 64 * 512) == sectors(sector - 64, 64));
    EXPECT_TRUE(got.slice(64 * 512, 80 * 512) == data);
    EXPECT_TRUE(got.slice(80 * 512, 128 * 512) == sectors(sector + 16, 48));
  }
  EXPECT_TRUE(file.contents(0, 4 * MIB) == sectors(0, 8192));
}

TEST(VolatileEngine, OffersWhatAWritableDiskDoes) {
  ScratchDisk file(Medium::CACHED, MIB);
  auto readOnly = file.openReadOnly();
  BlkBench bench(readOnly, volatileOptions());
  auto info = bench.device.describe();
  EXPECT_EQ(info.getInfo().getFeatures() & virtio::BLK_F_RO, 0u);
  EXPECT_NE(info.getInfo().getFeatures() & virtio::BLK_F_DISCARD, 0u);
  EXPECT_EQ(bench.wait(bench.sendWrite(2047, filled(512, 1))).status, virtio::BLK_S_OK);
  EXPECT_EQ(bench.wait(bench.sendWrite(2048, filled(512, 1))).status, virtio::BLK_S_IOERR);
}

TEST(VolatileEngine, ManyAtOnceThroughTwoQueues) {
  ScratchDisk file(Medium::CACHED, 4 * MIB);
  file.dropCache();
  auto readOnly = file.openReadOnly();
  BlkBench bench(readOnly, volatileOptions(2));
  kj::Vector<BlkBench::Sent> sent[2];
  for (uint64_t i = 0; i < 64; i++) {
    for (uint16_t queue = 0; queue < 2; queue++) {
      // The two halves of a cluster, at the same time.
      sent[queue].add(bench.sendWrite(i * 64 + queue * 4, filled(2048, i * 2 + queue), queue));
    }
  }
  bench.device.kick(0);
  bench.device.kick(1);
  bench.device.waitUntil(
      [&] { return bench.driver(0).usedIndex() == 64 && bench.driver(1).usedIndex() == 64; });
  while (bench.driver(0).takeUsed() != nullptr) {
  }
  for (uint64_t i = 0; i < 64; i++) {
    EXPECT_EQ(bench.status(sent[0][i]), virtio::BLK_S_OK);
    EXPECT_EQ(bench.status(sent[1][i]), virtio::BLK_S_OK);
    auto read = bench.sendRead(i * 64, 8192);
    EXPECT_EQ(bench.wait(read).status, virtio::BLK_S_OK);
    auto got = bench.data(read, 8192);
    EXPECT_TRUE(got.slice(0, 2048) == filled(2048, i * 2));
    EXPECT_TRUE(got.slice(2048, 4096) == filled(2048, i * 2 + 1));
    EXPECT_TRUE(got.slice(4096, 8192) == sectors(i * 64 + 8, 8));
  }
}

// So that nobody takes the thread for stuck, however slow its CPU is.
TEST(VolatileDisk, ARequestOfManyStepsShowsThatItGetsOn) {
  constexpr uint32_t STEPS = 64;
  ScratchDisk file(Medium::MEMORY, MIB);
  BlkBench::Options options;
  options.volatileBytes = PLENTY;
  BlkBench bench(file.fd(), options);
  uint32_t sectorsEach = BLOCK / 512;
  for (uint32_t i = 0; i < STEPS; i += 2) {
    auto sent = bench.sendWrite(i * sectorsEach, filled(BLOCK, 0x77));
    ASSERT_EQ(bench.wait(sent).status, virtio::BLK_S_OK);
  }
  alignas(64) kj::byte memory[virtio::VitalSigns::BYTES] = {};
  virtio::VitalSigns signs(memory, 0);
  bench.device.showIn(signs);
  auto stepsSoFar = [&] { return signs.sign(1).word / (virtio::Sign::STATE_BITS + 1); };
  ASSERT_EQ(bench.wait(bench.sendFlush()).status, virtio::BLK_S_OK);
  uint64_t before = stepsSoFar();
  auto sent = bench.sendRead(0, STEPS * BLOCK);
  ASSERT_EQ(bench.wait(sent).status, virtio::BLK_S_OK);
  EXPECT_GE(stepsSoFar(), before + STEPS);
}

}  // namespace
}  // namespace troupe::blk
