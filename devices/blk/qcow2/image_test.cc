#include "devices/blk/qcow2/image.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/exception.h>

#include <atomic>
#include <cstring>
#include <string>
#include <thread>

#include "devices/blk/qcow2/testing/blank_image.h"
#include "devices/blk/qcow2/testing/memory_file.h"
#include "devices/blk/qcow2/testing/tagged_disk.h"
#include "devices/blk/qcow2/testing/whole_disk.h"

namespace troupe::blk::qcow2 {
namespace {

using testing::BlankImage;
using testing::makeBlank;
using testing::MemoryFile;
using testing::openAlone;
using testing::TaggedDisk;
using testing::WholeDisk;

constexpr uint64_t CLUSTER = 65536;

kj::Array<kj::byte> filled(size_t size, kj::byte value) {
  auto bytes = kj::heapArray<kj::byte>(size);
  memset(bytes.begin(), value, size);
  return bytes;
}

std::string openingFails(kj::ArrayPtr<const ChainFile> files, Access access = Access::READ_WRITE) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { openChain(files, access); })) {
    return exception->getDescription().cStr();
  }
  return "";
}

::testing::AssertionResult says(const std::string& text, const char* part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "'" << text << "' does not say " << part;
}

struct Blank {
  explicit Blank(const BlankImage& blank = {}) : file(makeBlank(blank)), image(openAlone(file)) {}
  MemoryFile file;
  kj::Own<Image> image;
  WholeDisk disk{*image, file};
};

TEST(Qcow2Image, AllocatedBytesAreLocatedWithoutTheLock) {
  Blank blank;
  ASSERT_EQ(blank.disk.write(3 * CLUSTER, filled(2 * CLUSTER, 1)), 0);
  auto extent = blank.image->locateForWrite(3 * CLUSTER + 512, 4096);
  EXPECT_EQ(extent.kind, Extent::Kind::DATA);
  EXPECT_EQ(extent.bytes, 4096u);
  // Neighbours in the file are one transfer.
  EXPECT_EQ(blank.image->locate(3 * CLUSTER, 2 * CLUSTER).bytes, 2 * CLUSTER);
  EXPECT_EQ(blank.image->locateForWrite(3 * CLUSTER, 2 * CLUSTER).bytes, 2 * CLUSTER);
}

TEST(Qcow2Image, AWriteThatIsNotFlushedChangesNoMapping) {
  Blank blank;
  ASSERT_EQ(blank.disk.write(0, filled(512, 1)), 0);
  EXPECT_TRUE(blank.image->needsCommit());
  MemoryFile other(blank.file.contents());
  EXPECT_TRUE(WholeDisk(*openAlone(other), other).contents() == filled(1 << 20, 0));
  ASSERT_EQ(blank.image->flush(), 0);
  EXPECT_FALSE(blank.image->needsCommit());
  MemoryFile third(blank.file.contents());
  EXPECT_EQ(WholeDisk(*openAlone(third), third).contents()[0], 1);
}

TEST(Qcow2Image, AFlushWithoutNewMappingsIsOneSync) {
  Blank blank;
  ASSERT_EQ(blank.disk.write(0, filled(512, 1)), 0);
  ASSERT_EQ(blank.image->flush(), 0);
  uint64_t before = blank.file.syncs();
  ASSERT_EQ(blank.disk.write(512, filled(512, 2)), 0);
  ASSERT_EQ(blank.image->flush(), 0);
  EXPECT_EQ(blank.file.syncs(), before + 1);
}

TEST(Qcow2Image, ADiscardedClusterIsGivenToNobodyWhileATransferMayKnowIt) {
  Blank blank;
  ASSERT_EQ(blank.disk.write(0, filled(CLUSTER, 1)), 0);
  ASSERT_EQ(blank.image->flush(), 0);
  uint8_t begun = blank.image->inFlight().begin(0);
  uint64_t place = blank.image->locateForWrite(0, 512).offset;
  ASSERT_EQ(blank.image->discard(0, CLUSTER), 0);
  ASSERT_EQ(blank.image->flush(), 0);
  ASSERT_EQ(blank.disk.write(CLUSTER, filled(CLUSTER, 2)), 0);
  EXPECT_NE(blank.image->locateForWrite(CLUSTER, 512).offset, place);
  blank.image->inFlight().end(0, begun);
  ASSERT_EQ(blank.image->flush(), 0);
  ASSERT_EQ(blank.disk.write(2 * CLUSTER, filled(CLUSTER, 3)), 0);
  EXPECT_EQ(blank.image->locateForWrite(2 * CLUSTER, 512).offset, place);
}

TEST(Qcow2Image, SpaceIsUsedAgain) {
  Blank blank;
  for (int i = 0; i < 200; i++) {
    ASSERT_EQ(blank.disk.write(0, filled(1 << 20, i)), 0);
    ASSERT_EQ(blank.image->discard(0, 1 << 20), 0);
    ASSERT_EQ(blank.image->flush(), 0);
  }
  EXPECT_LT(blank.file.size(), 4u << 20);
}

TEST(Qcow2Image, KeepingTheSpaceZeroesKeepThePlace) {
  Blank blank;
  ASSERT_EQ(blank.disk.write(0, filled(CLUSTER, 1)), 0);
  uint64_t place = blank.image->locateForWrite(0, 512).offset;
  ASSERT_EQ(blank.image->writeZeroes(0, CLUSTER, Image::Space::KEEP), 0);
  EXPECT_EQ(blank.image->locate(0, 512).kind, Extent::Kind::ZEROES);
  ASSERT_EQ(blank.disk.write(512, filled(512, 2)), 0);
  EXPECT_EQ(blank.image->locateForWrite(0, 512).offset, place);
  auto now = blank.disk.contents();
  EXPECT_TRUE(now.slice(0, 512) == filled(512, 0));
  EXPECT_TRUE(now.slice(512, 1024) == filled(512, 2));
  EXPECT_TRUE(now.slice(1024, CLUSTER) == filled(CLUSTER - 1024, 0));
}

TEST(Qcow2Image, AReadOnlyImageIsNotWritten) {
  MemoryFile file(makeBlank({}));
  auto image = openAlone(file, Access::READ_ONLY);
  auto sector = filled(512, 1);
  EXPECT_EQ(WholeDisk(*image, file).write(0, sector), -EROFS);
  EXPECT_EQ(image->discard(0, CLUSTER), -EROFS);
  EXPECT_EQ(image->grow(2 << 20), -EROFS);
  EXPECT_EQ(image->close(), 0);
  EXPECT_EQ(file.changes(), 0u);
}

// A host on which no file is longer than `limit`: a write ends there.
class ShortHost final: public ImageFile {
 public:
  ShortHost(kj::ArrayPtr<const kj::byte> bytes, uint64_t limit) : file(bytes), limit(limit) {}

  int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override {
    return file.read(pieces, offset);
  }
  int64_t write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override {
    if (offset >= limit) return -EFBIG;
    iovec first = pieces[0];
    first.iov_len = kj::min(first.iov_len, limit - offset);
    return file.write(kj::arrayPtr(&first, 1), offset);
  }
  int sync() override { return file.sync(); }
  int truncate(uint64_t bytes) override { return bytes > limit ? -EFBIG : file.truncate(bytes); }
  int punch(uint64_t offset, uint64_t bytes) override { return file.punch(offset, bytes); }
  uint64_t size() override { return file.size(); }
  uint32_t blockBytes() const override { return 1; }

  MemoryFile file;
  const uint64_t limit;
};

TEST(Qcow2Image, AGrowthThatFailsIsInNoSmallerOnesWay) {
  BlankImage blank;
  blank.clusterBits = 9;
  ShortHost host(makeBlank(blank), 1 << 20);
  auto image = openAlone(host);
  for (int i = 0; i < 3; i++) {
    EXPECT_EQ(image->grow(uint64_t(16) << 30), -EFBIG) << "4 MiB of table";
    EXPECT_EQ(image->size(), uint64_t(1) << 20);
  }
  EXPECT_LT(host.size(), 256u << 10) << "the file is as long as before, but for its refcounts";
  EXPECT_EQ(image->grow(uint64_t(256) << 20), 0);
  ASSERT_EQ(WholeDisk(*image, host).write((256 << 20) - 512, filled(512, 1)), 0);
  EXPECT_EQ(image->close(), 0);
  image = openAlone(host);
  EXPECT_EQ(image->size(), uint64_t(256) << 20);
  auto contents = kj::heapArray<kj::byte>(512);
  ASSERT_EQ(WholeDisk(*image, host).read((256 << 20) - 512, contents), 0);
  EXPECT_TRUE(contents == filled(512, 1));
}

TEST(Qcow2Image, AnImageThatIsOnlyReadIsNotChangedByOpeningIt) {
  Blank blank;
  blank.disk.contents();
  ASSERT_EQ(blank.image->flush(), 0);
  ASSERT_EQ(blank.image->close(), 0);
  EXPECT_EQ(blank.file.changes(), 1u);  // the flush
  EXPECT_TRUE(blank.file.contents() == makeBlank({}));
}

TEST(Qcow2Image, LazyRefcountsAreMarkedAndRepaired) {
  BlankImage lazy;
  lazy.lazyRefcounts = true;
  Blank blank(lazy);
  TaggedDisk guest(1 << 20, 3);
  for (int i = 0; i < 100; i++)
    ASSERT_EQ(guest.step(*blank.image, blank.file), 0);
  ASSERT_EQ(guest.flush(*blank.image), 0);
  auto header = [](MemoryFile& file) {
    return parseHeader(file.contents(), file.size(), Access::READ_WRITE);
  };
  EXPECT_TRUE(header(blank.file).isDirty());
  MemoryFile crashed(blank.file.contents());
  auto image = openAlone(crashed);
  EXPECT_FALSE(header(crashed).isDirty());
  EXPECT_EQ(guest.wrong(WholeDisk(*image, crashed).contents()), 0u);
  for (int i = 0; i < 100; i++)
    ASSERT_EQ(guest.step(*image, crashed), 0);
  ASSERT_EQ(image->close(), 0);
  EXPECT_FALSE(header(crashed).isDirty());
  EXPECT_EQ(guest.wrong(WholeDisk(*image, crashed).contents()), 0u);
}

TEST(Qcow2Image, ShortTransfersAreGoneOnWith) {
  Blank blank;
  blank.file.shortTransfers(true);
  TaggedDisk guest(1 << 20, 5);
  for (int i = 0; i < 100; i++)
    ASSERT_EQ(guest.step(*blank.image, blank.file), 0);
  ASSERT_EQ(blank.image->close(), 0);
  EXPECT_EQ(guest.wrong(blank.disk.contents()), 0u);
  MemoryFile again(blank.file.contents());
  EXPECT_EQ(guest.wrong(WholeDisk(*openAlone(again), again).contents()), 0u);
}

// A file system without room, then with room again: requests fail, nothing that was flushed is
// lost, and the guest goes on.
TEST(Qcow2Image, ENOSPCAtAnyWriteLosesNothing) {
  int failed = 0;
  for (uint64_t fail = 0; fail < 60; fail++) {
    BlankImage small;
    small.clusterBits = 9;
    small.size = 256 << 10;
    Blank blank(small);
    TaggedDisk guest(small.size, fail);
    blank.file.failAfter(fail * 7, ENOSPC, true);
    for (int i = 0; i < 60; i++)
      failed += guest.step(*blank.image, blank.file) != 0;
    blank.file.failNothing();
    ASSERT_EQ(guest.flush(*blank.image), 0);
    for (int i = 0; i < 30; i++)
      ASSERT_EQ(guest.step(*blank.image, blank.file), 0);
    ASSERT_EQ(blank.image->close(), 0);
    ASSERT_EQ(guest.wrong(blank.disk.contents()), 0u) << fail;
  }
  EXPECT_GT(failed, 100);
}

// The refcount table leaves its place: 64-bit counts of clusters of 512 bytes fill it every 2 MiB.
TEST(Qcow2Image, TheRefcountTableGrows) {
  BlankImage small;
  small.clusterBits = 9;
  small.refcountOrder = 6;
  small.size = 256 << 10;
  Blank blank(small);
  ASSERT_EQ(blank.image->grow(12 << 20), 0);
  TaggedDisk guest(12 << 20, 1);
  for (int i = 0; i < 600; i++)
    ASSERT_EQ(guest.step(*blank.image, blank.file), 0) << i;
  ASSERT_EQ(blank.image->close(), 0);
  auto header = parseHeader(blank.file.contents(), blank.file.size(), Access::READ_WRITE);
  EXPECT_GT(header.refcountTableClusters, 1u);
  MemoryFile again(blank.file.contents());
  EXPECT_EQ(guest.wrong(WholeDisk(*openAlone(again), again).contents()), 0u);
}

TEST(Qcow2Chain, NamesMustBeThoseOfTheConfiguration) {
  EXPECT_EQ(resolveName("/images/vm.qcow2", "base.raw"), "/images/base.raw");
  EXPECT_EQ(resolveName("/images/vm.qcow2", "../base.raw"), "/images/../base.raw");
  EXPECT_EQ(resolveName("vm.qcow2", "base.raw"), "base.raw");
  EXPECT_EQ(resolveName("vm.qcow2", "/base.raw"), "/base.raw");

  BlankImage overlay;
  overlay.backingName = "base.raw";
  overlay.backingFormat = "raw";
  MemoryFile top(makeBlank(overlay));
  MemoryFile base(filled(1 << 20, 9));
  MemoryFile other(makeBlank({}));
  ChainFile alone[] = {{top, ImageFormat::QCOW2, "/i/vm.qcow2"}};
  EXPECT_TRUE(says(openingFails(alone), "TRP-blk-024"));
  EXPECT_TRUE(says(openingFails(alone), "/i/base.raw"));
  ChainFile right[] = {alone[0], {base, ImageFormat::RAW, "/i/base.raw"}};
  EXPECT_EQ(openingFails(right), "");
  ChainFile elsewhere[] = {alone[0], {base, ImageFormat::RAW, "/j/base.raw"}};
  EXPECT_TRUE(says(openingFails(elsewhere), "TRP-blk-024"));
  ChainFile otherFormat[] = {alone[0], {other, ImageFormat::QCOW2, "/i/base.raw"}};
  EXPECT_TRUE(says(openingFails(otherFormat), "TRP-blk-024"));
  ChainFile tooMany[] = {right[0], right[1], {other, ImageFormat::QCOW2, "/i/other"}};
  EXPECT_TRUE(says(openingFails(tooMany), "TRP-blk-024"));
  ChainFile unasked[] = {{other, ImageFormat::QCOW2, "/i/other"}, right[1]};
  EXPECT_TRUE(says(openingFails(unasked), "TRP-blk-024"));
}

TEST(Qcow2Chain, WhatIsBelowIsReadInPlace) {
  BlankImage overlay;
  overlay.backingName = "base.raw";
  MemoryFile top(makeBlank(overlay));
  MemoryFile base(filled(1 << 20, 9));
  ChainFile files[] = {{top, ImageFormat::QCOW2, "vm"}, {base, ImageFormat::RAW, "base.raw"}};
  auto image = openChain(files, Access::READ_WRITE);
  ASSERT_EQ(image->prepare(0), 0);
  auto extent = image->locate(3 * CLUSTER, 4096);
  EXPECT_EQ(extent.kind, Extent::Kind::DATA);
  EXPECT_EQ(extent.file, 1);
  EXPECT_EQ(extent.offset, 3 * CLUSTER);
}

TEST(Qcow2Image, TablesThatOverlapAreRefusedAtOpen) {
  auto refused = [](size_t at, uint64_t word) {
    auto bytes = makeBlank({});
    store64(bytes.begin() + at, word);
    MemoryFile file(bytes);
    ChainFile only[] = {{file, ImageFormat::QCOW2, "vm"}};
    return openingFails(only);
  };
  EXPECT_TRUE(says(refused(3 * CLUSTER, 0 | COPIED), "TRP-blk-023"));            // L2 = header
  EXPECT_TRUE(says(refused(3 * CLUSTER, CLUSTER | COPIED), "TRP-blk-023"));      // refcount table
  EXPECT_TRUE(says(refused(3 * CLUSTER, 2 * CLUSTER | COPIED), "TRP-blk-023"));  // its block
  EXPECT_TRUE(says(refused(3 * CLUSTER, 3 * CLUSTER | COPIED), "TRP-blk-023"));  // the L1 table
  EXPECT_TRUE(says(refused(3 * CLUSTER, (1ull << 40) | COPIED), "TRP-blk-023"));
  EXPECT_TRUE(says(refused(CLUSTER, 3 * CLUSTER), "TRP-blk-023"));  // a block = the L1 table
  EXPECT_TRUE(says(refused(AT_L1_OFFSET, CLUSTER), "TRP-blk-023"));
  EXPECT_TRUE(says(refused(AT_L1_OFFSET, 2 * CLUSTER), "TRP-blk-023"));
}

// An entry that leads into the image's own tables: the guest gets an error and they stay.
TEST(Qcow2Image, AnEntryIntoATableIsNotWritten) {
  Blank blank;
  ASSERT_EQ(blank.disk.write(0, filled(CLUSTER, 1)), 0);
  ASSERT_EQ(blank.image->close(), 0);
  auto sound = kj::heapArray<kj::byte>(blank.file.contents());
  uint64_t l2 = load64(sound.begin() + 3 * CLUSTER) & OFFSET_MASK;
  for (uint64_t cluster : {1ul, 2ul, 3ul, l2 / CLUSTER}) {
    for (uint64_t flags : {COPIED, COPIED | ALL_ZEROES}) {
      store64(sound.begin() + l2, (cluster * CLUSTER) | flags);
      MemoryFile file(sound);
      auto image = openAlone(file);
      auto sector = filled(512, 0xee);
      EXPECT_EQ(WholeDisk(*image, file).write(0, sector), -EIO);
      EXPECT_EQ(image->writeZeroes(0, CLUSTER, Image::Space::GIVE_BACK), -EIO);
      image->close();
      EXPECT_TRUE(file.contents().slice(CLUSTER, sound.size()) ==
                  sound.slice(CLUSTER, sound.size()));
    }
  }
}

// Threads that look mappings up while another one allocates, discards and evicts.
TEST(Qcow2Image, LookupsAgreeWithChangesMadeMeanwhile) {
  SliceCache cache(64, 16);
  std::atomic<bool> done{false};
  std::atomic<uint64_t> mistakes{0};
  auto look = [&] {
    uint64_t slice = 0;
    while (!done.load()) {
      uint64_t entry;
      slice = (slice + 1) % 64;
      if (cache.lookup(slice, slice, entry) && entry / 1000 != slice) mistakes++;
    }
  };
  std::thread first(look);
  std::thread second(look);
  uint64_t entries[64];
  for (uint64_t i = 0; i < 20000; i++) {
    uint64_t slice = i * 7 % 64;
    auto slot = cache.find(slice);
    if (slot == nullptr) {
      for (uint64_t& entry : entries)
        entry = slice * 1000;
      slot = cache.room(slice);
      cache.fill(KJ_ASSERT_NONNULL(slot), slice, entries, true);
    }
    cache.set(KJ_ASSERT_NONNULL(slot), slice, slice * 1000 + i % 1000, false);
  }
  done.store(true);
  first.join();
  second.join();
  EXPECT_EQ(mistakes.load(), 0u);
}

}  // namespace
}  // namespace troupe::blk::qcow2
