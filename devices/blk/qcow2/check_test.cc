// Checks and new images against the peer: qemu-img and qemu-io must be installed.
#include "devices/blk/qcow2/check.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cstdlib>
#include <random>
#include <string>

#include "devices/blk/qcow2/new_image.h"
#include "devices/blk/qcow2/testing/memory_file.h"
#include "devices/blk/qcow2/testing/qemu_img.h"
#include "devices/blk/qcow2/testing/whole_disk.h"

namespace troupe::blk::qcow2 {
namespace {

using testing::MemoryFile;
using testing::openAlone;
using testing::QemuFolder;
using testing::WholeDisk;

constexpr uint64_t MOST_FILE = 1ull << 30;

Header headerOf(MemoryFile& file) {
  auto start = kj::heapArray<kj::byte>(64 << 10);
  memset(start.begin(), 0, start.size());
  memcpy(start.begin(), file.contents().begin(), kj::min(start.size(), file.size()));
  return parseHeader(start, file.size(), Access::READ_ONLY);
}

CheckResult checkFile(MemoryFile& file, Repair repair = Repair::NOTHING,
                      uint64_t windowClusters = 32 << 20) {
  return checkInWindows(file, headerOf(file), repair, windowClusters, [](uint64_t, uint64_t) {});
}

CheckResult checkBytes(kj::ArrayPtr<const kj::byte> bytes) {
  MemoryFile file(bytes, MOST_FILE);
  auto result = checkFile(file);
  KJ_ASSERT(file.changes() == 0, "a check writes nothing");
  return result;
}

// What qemu-img says of the same image.
struct Peer {
  uint64_t errors = 0, leaks = 0, allocated = 0, compressed = 0, total = 0, end = 0;
};
uint64_t field(const std::string& json, const std::string& name) {
  size_t at = json.find("\"" + name + "\": ");
  return at == std::string::npos ? 0
                                 : std::strtoull(json.c_str() + at + name.size() + 4, nullptr, 10);
}
Peer ask(QemuFolder& folder, kj::StringPtr name) {
  folder.status(kj::str("qemu-img check --output=json -f qcow2 ", name, " 2>/dev/null"));
  auto bytes = folder.load("output");
  std::string json(bytes.asChars().begin(), bytes.size());
  return {field(json, "corruptions"),        field(json, "leaks"),
          field(json, "allocated-clusters"), field(json, "compressed-clusters"),
          field(json, "total-clusters"),     field(json, "image-end-offset")};
}

void expectAlike(QemuFolder& folder, kj::StringPtr name) {
  auto ours = checkBytes(folder.load(name));
  auto theirs = ask(folder, name);
  EXPECT_EQ(ours.errors, theirs.errors);
  EXPECT_EQ(ours.leaks, theirs.leaks);
  EXPECT_EQ(ours.totalClusters, theirs.total);
  EXPECT_EQ(ours.allocatedClusters, theirs.allocated);
  EXPECT_EQ(ours.compressedClusters, theirs.compressed);
  EXPECT_EQ(ours.endOffset, theirs.end);
}

constexpr const char* VARIANTS[] = {"-o cluster_size=64k",      "-o cluster_size=512",
                                    "-o cluster_size=2M",       "-o compat=0.10",
                                    "-o refcount_bits=1",       "-o refcount_bits=8",
                                    "-o refcount_bits=64",      "-o lazy_refcounts=on",
                                    "-o compression_type=zstd", "-o preallocation=metadata"};

class Qcow2Check: public ::testing::TestWithParam<const char*> {
 protected:
  // With data, zeroes, holes, and a snapshot where counts can say so.
  void fill(kj::StringPtr name) {
    folder.run(kj::str("qemu-img create -q -f qcow2 ", GetParam(), " ", name, " 24M"));
    folder.run(kj::str("qemu-io -f qcow2 -c 'write -P 7 0 3M' -c 'write -z 1M 1M' ",
                       "-c 'write -P 9 20M 100k' -c 'discard 64k 128k' ", name));
    if (std::string(GetParam()) != "-o refcount_bits=1") {
      folder.run(kj::str("qemu-img snapshot -c one ", name));
      folder.run(kj::str("qemu-io -f qcow2 -c 'write -P 8 0 1M' ", name));
    }
  }
  QemuFolder folder;
};
INSTANTIATE_TEST_SUITE_P(Variants, Qcow2Check, ::testing::ValuesIn(VARIANTS));

TEST_P(Qcow2Check, HasNothingAgainstSoundImages) {
  fill("a");
  auto result = checkBytes(folder.load("a"));
  EXPECT_EQ(result.errors, 0u);
  EXPECT_EQ(result.leaks, 0u);
  expectAlike(folder, "a");
}

TEST_P(Qcow2Check, CountsWhatQemuImgCountsInDamagedCounts) {
  fill("a");
  auto sound = folder.load("a");
  auto header = parseHeader(sound.slice(0, 512), sound.size(), Access::READ_ONLY);
  uint64_t block = load64(sound.begin() + header.refcountTableOffset);
  std::mt19937_64 random(5);
  for (int i = 0; i < 12; i++) {
    auto changed = kj::heapArray<kj::byte>(sound.asPtr());
    for (int n = 0; n < 3; n++)
      changed[block + random() % kj::min(header.geometry.clusterBytes(), 96ul)] ^= 1u
                                                                                   << random() % 3;
    folder.store("b", changed);
    expectAlike(folder, "b");
  }
}

TEST_P(Qcow2Check, CountsWhatQemuImgCountsInDamagedMappings) {
  fill("a");
  auto sound = folder.load("a");
  auto header = parseHeader(sound.slice(0, 512), sound.size(), Access::READ_ONLY);
  uint64_t table = load64(sound.begin() + header.l1Offset) & OFFSET_MASK;
  uint64_t cluster = header.geometry.clusterBytes();
  for (uint64_t entry : {uint64_t(0), load64(sound.begin() + table + 8), COPIED | header.l1Offset,
                         COPIED | (sound.size() + 4 * cluster) / cluster * cluster,
                         load64(sound.begin() + table) ^ COPIED}) {
    auto changed = kj::heapArray<kj::byte>(sound.asPtr());
    store64(changed.begin() + table, entry);
    folder.store("b", changed);
    expectAlike(folder, "b");
  }
}

TEST_P(Qcow2Check, CountsTheSameInSmallWindows) {
  fill("a");
  auto bytes = folder.load("a");
  auto header = parseHeader(bytes.slice(0, 512), bytes.size(), Access::READ_ONLY);
  uint64_t block = load64(bytes.begin() + header.refcountTableOffset);
  bytes[block + 1] ^= 1;
  bytes[block + 9] ^= 1;
  MemoryFile file(bytes, MOST_FILE);
  auto whole = checkFile(file);
  auto parts = checkFile(file, Repair::NOTHING, 7);
  EXPECT_EQ(parts.errors, whole.errors);
  EXPECT_EQ(parts.leaks, whole.leaks);
  EXPECT_EQ(parts.allocatedClusters, whole.allocatedClusters);
  EXPECT_EQ(parts.endOffset, whole.endOffset);
}

TEST_P(Qcow2Check, GivesLeaksBackAndNothingElse) {
  fill("a");
  folder.run("qemu-img convert -f qcow2 -O raw a before.raw");
  auto bytes = folder.load("a");
  auto header = parseHeader(bytes.slice(0, 512), bytes.size(), Access::READ_ONLY);
  // Clusters at the end that were counted before a crash and never used.
  uint64_t cluster = header.geometry.clusterBytes();
  uint64_t first = header.geometry.clustersFor(bytes.size());
  uint64_t perBlock = header.geometry.refcountsPerBlock();
  auto longer = kj::heapArray<kj::byte>((first + 2) * cluster);
  memset(longer.begin(), 0, longer.size());
  memcpy(longer.begin(), bytes.begin(), bytes.size());
  uint64_t leaked = 0;
  for (uint64_t i = first; i < first + 2; i++) {
    uint64_t block = load64(bytes.begin() + header.refcountTableOffset + i / perBlock * 8);
    if (block == 0) continue;
    uint32_t order = header.geometry.refcountOrder;
    uint64_t bit = (i % perBlock) << order;
    if (order >= 3) {
      longer[block + bit / 8 + (1 << order) / 8 - 1] = 1;
    } else {
      longer[block + bit / 8] |= 1 << bit % 8;
    }
    leaked++;
  }
  folder.store("b", longer);
  expectAlike(folder, "b");
  MemoryFile file(longer, MOST_FILE);
  for (uint64_t window : {5ul, 32ul << 20}) {
    MemoryFile repaired(longer, MOST_FILE);
    auto result = checkFile(repaired, Repair::LEAKS, window);
    EXPECT_EQ(result.repairedLeaks, leaked);
    EXPECT_EQ(result.leaks, 0u);
    folder.store("c", repaired.contents());
    EXPECT_STREQ(folder.check("c").cStr(), "");
    folder.run("qemu-img compare -f qcow2 -F raw c before.raw");
  }
}

TEST(Qcow2Repair, LeavesAnImageWithErrorsAsItIs) {
  QemuFolder folder;
  folder.run("qemu-img create -q -f qcow2 a 8M && qemu-io -f qcow2 -c 'write 0 1M' a");
  auto bytes = folder.load("a");
  auto header = parseHeader(bytes.slice(0, 512), bytes.size(), Access::READ_ONLY);
  uint64_t block = load64(bytes.begin() + header.refcountTableOffset);
  store16(bytes.begin() + block + 2 * 6, 0);  // used
  store16(bytes.begin() + block + 2 * 7, 2);  // used once
  MemoryFile file(bytes, MOST_FILE);
  auto result = checkFile(file, Repair::LEAKS);
  EXPECT_GE(result.errors, 1u);
  EXPECT_EQ(result.repairedLeaks, 0u);
  EXPECT_TRUE(file.contents() == bytes);
}

TEST(Qcow2Repair, SetsTheFlagOfWhatIsUsedOnceAgain) {
  QemuFolder folder;
  folder.run("qemu-img create -q -f qcow2 a 8M && qemu-io -f qcow2 -c 'write 0 1M' a");
  auto bytes = folder.load("a");
  auto header = parseHeader(bytes.slice(0, 512), bytes.size(), Access::READ_ONLY);
  uint64_t block = load64(bytes.begin() + header.refcountTableOffset);
  uint64_t table = load64(bytes.begin() + header.l1Offset) & OFFSET_MASK;
  uint64_t place = load64(bytes.begin() + table) & OFFSET_MASK;
  store64(bytes.begin() + table, place);
  store16(bytes.begin() + block + 2 * header.geometry.clusterOf(place), 2);
  MemoryFile file(bytes, MOST_FILE);
  auto result = checkFile(file, Repair::LEAKS);
  EXPECT_EQ(result.errors, 0u);
  EXPECT_EQ(result.repairedLeaks, 1u);
  folder.store("b", file.contents());
  EXPECT_STREQ(folder.check("b").cStr(), "");
}

// Whoever wrote the image: an answer or an error, and not a byte of the file changed by a check.
TEST(Qcow2HostileCheck, EndsAndWritesNothing) {
  QemuFolder folder;
  folder.run(
      "qemu-img create -q -f qcow2 -o cluster_size=4k a 1M && qemu-io -f qcow2 "
      "-c 'write 0 256k' a && qemu-img snapshot -c one a && qemu-io -f qcow2 -c 'write 0 64k' a");
  auto sound = folder.load("a");
  std::mt19937_64 random(11);
  uint64_t answers = 0;
  uint64_t refusals = 0;
  for (int i = 0; i < 3000; i++) {
    auto changed = kj::heapArray<kj::byte>(sound.asPtr());
    for (uint64_t n = 1 + random() % 4; n > 0; n--) {
      uint64_t at = random() % 3 == 0 ? 20 + random() % 92 : random() % (sound.size() - 8) & ~7ull;
      if (random() % 2 == 0) {
        changed[at] ^= 1u << random() % 8;
      } else {
        store64(changed.begin() + at, random() >> random() % 64);
      }
    }
    uint64_t size = random() % 8 == 0 ? 512 + random() % (changed.size() - 512) : changed.size();
    MemoryFile file(changed.slice(0, size), MOST_FILE);
    auto thrown = kj::runCatchingExceptions([&] {
      checkFile(file);
      answers++;
    });
    KJ_IF_MAYBE (exception, thrown) {
      EXPECT_NE(std::string(exception->getDescription().cStr()).find("TRP-"), std::string::npos)
          << exception->getDescription().cStr();
      refusals++;
    }
    ASSERT_EQ(file.changes(), 0u);
  }
  EXPECT_GT(answers, 300u);
  EXPECT_GT(refusals, 100u);
}

struct Made {
  uint64_t bytes;
  uint32_t clusterBits;
  bool lazy;
};
class NewImages: public ::testing::TestWithParam<Made> {};
INSTANTIATE_TEST_SUITE_P(Sizes, NewImages,
                         ::testing::Values(Made{512, 16, false}, Made{1 << 20, 9, true},
                                           Made{64ull << 30, 16, false},
                                           Made{100ull << 20, 21, false},
                                           Made{64ull << 30, 9, false}, Made{1ull << 40, 12, true},
                                           Made{(1ull << 33) + 512, 12, false}));

TEST_P(NewImages, AreSoundAndEmptyForUsAndForQemu) {
  auto made = GetParam();
  MemoryFile file(nullptr, MOST_FILE);
  makeImage(file, {made.bytes, made.clusterBits, made.lazy, "", ""});
  QemuFolder folder;
  folder.store("a", file.contents());
  EXPECT_STREQ(folder.check("a").cStr(), "");
  auto result = checkFile(file);
  EXPECT_EQ(result.errors + result.leaks, 0u);
  EXPECT_EQ(result.allocatedClusters, 0u);
  auto info = folder.run("qemu-img info -f qcow2 --output=json a");
  std::string json(info.cStr());
  EXPECT_EQ(field(json, "virtual-size"), made.bytes);
  EXPECT_EQ(field(json, "cluster-size"), 1ull << made.clusterBits);
  EXPECT_NE(json.find(made.lazy ? "\"lazy-refcounts\": true" : "\"lazy-refcounts\": false"),
            std::string::npos);
  // QEMU writes to it, and we do.
  if (made.bytes >= 1 << 20) {
    folder.run(kj::str("qemu-io -f qcow2 -c 'write -P 5 ", made.bytes - 65536, " 65024' a"));
    EXPECT_STREQ(folder.check("a").cStr(), "");
  }
  auto image = openAlone(file);
  EXPECT_EQ(image->size(), made.bytes);
  kj::byte sector[512];
  memset(sector, 3, sizeof(sector));
  EXPECT_EQ(WholeDisk(*image, file).write(made.bytes - 512, sector), 0);
  EXPECT_EQ(image->close(), 0);
  folder.store("b", file.contents());
  EXPECT_STREQ(folder.check("b").cStr(), "");
}

TEST(GrownImage, HasGivenTheOldL1TableBack) {
  MemoryFile file(nullptr, MOST_FILE);
  makeImage(file, {1 << 20, 12, false, "", ""});
  auto image = openAlone(file);
  EXPECT_EQ(image->grow(8ull << 30), 0);
  EXPECT_EQ(image->close(), 0);
  auto result = checkFile(file);
  EXPECT_EQ(result.errors, 0u);
  EXPECT_EQ(result.leaks, 0u);
}

TEST(NewOverlay, IsOneForQemu) {
  QemuFolder folder;
  folder.run(
      "qemu-img create -q -f raw base.raw 2M && qemu-io -f raw -c 'write -P 6 0 2M' base.raw");
  MemoryFile file(nullptr, MOST_FILE);
  makeImage(file, {2 << 20, 16, false, "base.raw", "raw"});
  folder.store("top", file.contents());
  folder.run("qemu-img compare -f qcow2 -F raw top base.raw");
  EXPECT_STREQ(folder.check("top").cStr(), "");
  auto header = headerOf(file);
  EXPECT_STREQ(KJ_ASSERT_NONNULL(header.backingName).cStr(), "base.raw");
  EXPECT_STREQ(KJ_ASSERT_NONNULL(header.backingFormat).cStr(), "raw");
}

TEST(NewImage, ThatCannotBeIsRefused) {
  for (auto wanted :
       {Made{0, 16, false}, Made{513, 16, false}, Made{1 << 20, 8, false}, Made{1 << 20, 22, false},
        Made{1ull << 40, 9, false}, Made{1ull << 57, 21, false}}) {
    MemoryFile file(nullptr, MOST_FILE);
    EXPECT_THROW(makeImage(file, {wanted.bytes, wanted.clusterBits, false, "", ""}), kj::Exception);
    EXPECT_EQ(file.size(), 0u);
  }
  auto name = kj::str(kj::repeat('x', 500));
  MemoryFile file(nullptr, MOST_FILE);
  EXPECT_THROW(makeImage(file, {1 << 20, 9, false, name, "raw"}), kj::Exception);
}

TEST(NewImage, OfAFullFileSystemIsAnError) {
  for (uint64_t n = 0; n < 5; n++) {
    MemoryFile file(nullptr, MOST_FILE);
    file.failAfter(n, ENOSPC, true);
    EXPECT_THROW(makeImage(file, {1 << 20, 16, false, "", ""}), kj::Exception);
  }
}

}  // namespace
}  // namespace troupe::blk::qcow2
