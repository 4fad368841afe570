// Images in which somebody changed a word: refused, or served with errors or wrong data of the
// guest's, but never a crash, a hang, growth, or a write into the image's own tables.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/exception.h>

#include <random>
#include <string>

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

constexpr uint64_t DISK_BYTES = 256 << 10;

kj::Array<kj::byte> usedImage(uint32_t clusterBits, bool lazy) {
  BlankImage blank;
  blank.clusterBits = clusterBits;
  blank.size = DISK_BYTES;
  blank.lazyRefcounts = lazy;
  MemoryFile file(makeBlank(blank));
  auto image = openAlone(file);
  TaggedDisk guest(DISK_BYTES, 4);
  for (int i = 0; i < 25; i++)
    KJ_ASSERT(guest.step(*image, file) == 0);
  KJ_ASSERT(image->close() == 0);
  return kj::heapArray<kj::byte>(file.contents());
}

// What the library may touch of a file whose header it took: never the header's fixed part beyond
// the fields that change, whatever the tables say.
void serve(kj::ArrayPtr<const kj::byte> bytes, Access access, uint64_t seed) {
  MemoryFile file(bytes, 16 << 20);
  kj::runCatchingExceptions([&] {
    auto image = openAlone(file, access);
    uint64_t size = kj::min(image->size(), DISK_BYTES);
    TaggedDisk guest(size, seed);
    for (int i = 0; i < 25; i++)
      guest.step(*image, file);
    auto contents = kj::heapArray<kj::byte>(size);
    for (uint64_t at = 0; at + 4096 <= size; at += 4096)
      WholeDisk(*image, file).read(at, contents.slice(at, at + 4096));
    image->discard(0, size);
    image->writeZeroes(0, size, Image::Space::KEEP);
    image->flush();
    image->close();
  });
  ASSERT_EQ(load32(file.contents().begin()), MAGIC);
  ASSERT_TRUE(file.contents().slice(0, 24) == bytes.slice(0, 24));
}

// Words worth a try in a place that holds `word`.
std::vector<uint64_t> temptations(uint64_t word, uint64_t clusterBytes, uint64_t fileBytes) {
  return {0,
          1,
          word ^ 1,
          word + clusterBytes,
          word - clusterBytes,
          word + 512,
          clusterBytes,
          2 * clusterBytes,
          3 * clusterBytes | COPIED,
          4 * clusterBytes | COPIED,
          fileBytes,
          fileBytes - 512,
          COMPRESSED | word,
          COMPRESSED | (word & OFFSET_MASK) | (0xffull << 54),
          ALL_ZEROES | word,
          1ull << 40 | COPIED,
          OFFSET_MASK,
          INT64_MAX,
          UINT64_MAX};
}

class Qcow2Hostile: public ::testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(ClusterBits, Qcow2Hostile, ::testing::Values(9, 12, 16));

TEST_P(Qcow2Hostile, BLK06_AnyWordOfTheHeader) {
  auto sound = usedImage(GetParam(), false);
  for (size_t at = 4; at < 136; at += 4) {
    auto changed = kj::heapArray<kj::byte>(sound.asPtr());
    uint64_t word = load64(sound.begin() + at);
    for (uint64_t tempting : temptations(word, 1ull << GetParam(), sound.size())) {
      store64(changed.begin() + at, tempting);
      // Version, size of clusters and so on are kept by who opens it; they are compared as they
      // are.
      serve(changed, Access::READ_WRITE, at);
      store32(changed.begin() + at, uint32_t(tempting));
      store32(changed.begin() + at + 4, uint32_t(word));
      serve(changed, Access::READ_WRITE, at);
    }
  }
}

TEST_P(Qcow2Hostile, BLK06_AnyWordOfATable) {
  for (bool dirty : {false, true}) {
    auto sound = usedImage(GetParam(), dirty);
    if (dirty) store64(sound.begin() + AT_INCOMPATIBLE, INCOMPATIBLE_DIRTY);
    uint64_t clusterBytes = 1ull << GetParam();
    std::vector<uint64_t> tables = {clusterBytes, 2 * clusterBytes, 3 * clusterBytes};
    for (uint64_t i = 0; i < 4; i++)
      tables.push_back(load64(sound.begin() + 3 * clusterBytes + i * 8) & OFFSET_MASK);
    for (uint64_t table : tables) {
      if (table == 0 || table + clusterBytes > sound.size()) continue;
      for (size_t i = 0; i < kj::min(clusterBytes / 8, 4ull); i++) {
        uint64_t word = load64(sound.begin() + table + i * 8);
        for (uint64_t tempting : temptations(word, clusterBytes, sound.size())) {
          auto changed = kj::heapArray<kj::byte>(sound.asPtr());
          store64(changed.begin() + table + i * 8, tempting);
          serve(changed, Access::READ_WRITE, i);
          serve(changed, Access::READ_ONLY, i);
        }
      }
    }
  }
}

TEST_P(Qcow2Hostile, BLK06_RandomDamage) {
  auto sound = usedImage(GetParam(), false);
  std::mt19937_64 random(GetParam());
  uint64_t metadata = kj::min(uint64_t(sound.size()), 8ull << GetParam());
  for (int i = 0; i < 400; i++) {
    auto changed = kj::heapArray<kj::byte>(sound.asPtr());
    for (uint64_t n = 1 + random() % 6; n > 0; n--) {
      // Behind the header's first words: without them it is no image at all.
      uint64_t at = random() % 2 == 0 ? 24 + random() % 88 : 24 + random() % (metadata - 32);
      changed[at] ^= 1u << random() % 8;
    }
    serve(changed, random() % 4 == 0 ? Access::READ_ONLY : Access::READ_WRITE, random());
  }
}

TEST_P(Qcow2Hostile, BLK06_FilesCutAnywhere) {
  auto sound = usedImage(GetParam(), false);
  for (uint64_t i = 0; i < 64; i++) {
    uint64_t size = kj::max(sound.size() * i / 64, 32ul);
    serve(sound.slice(0, size), Access::READ_WRITE, i);
    serve(sound.slice(0, size), Access::READ_ONLY, i);
  }
}

TEST_P(Qcow2Hostile, BLK07_ReadErrorsAreAnswersAndPass) {
  auto sound = usedImage(GetParam(), false);
  MemoryFile file(sound);
  auto image = openAlone(file);
  file.failReads(EIO);
  kj::byte sector[512];
  for (uint64_t at = 0; at < DISK_BYTES; at += 4096) {
    WholeDisk(*image, file).read(at, sector);
    WholeDisk(*image, file).write(at, sector);
  }
  file.failReads(0);
  TaggedDisk guest(DISK_BYTES, 1);
  guest.adopt(WholeDisk(*image, file).contents());
  EXPECT_EQ(image->close(), 0);
  MemoryFile again(file.contents());
  EXPECT_EQ(guest.wrong(WholeDisk(*openAlone(again), again).contents()), 0u);
}

}  // namespace
}  // namespace troupe::blk::qcow2
