// Images of qemu-img read here, images written here checked and read by qemu-img.
#include "devices/blk/qcow2/testing/qemu_img.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <string>

#include "devices/blk/qcow2/chain.h"
#include "devices/blk/qcow2/testing/memory_file.h"
#include "devices/blk/qcow2/testing/tagged_disk.h"
#include "devices/blk/qcow2/testing/whole_disk.h"

namespace troupe::blk::qcow2 {
namespace {

using testing::MemoryFile;
using testing::openAlone;
using testing::QemuFolder;
using testing::TaggedDisk;
using testing::WholeDisk;

constexpr uint64_t DISK_BYTES = 3 * 1024 * 1024 + 512 * 3;  // ends inside of a cluster

struct Variant {
  const char* name;
  const char* options;  // of qemu-img convert
  bool patient;         // many clusters: fewer steps
};

void PrintTo(const Variant& variant, std::ostream* out) {
  *out << variant.name;
}

const Variant VARIANTS[] = {
    {"Plain", "", false},
    {"Version2", "-o compat=0.10", false},
    {"Cluster512", "-o cluster_size=512", true},
    {"Cluster4K", "-o cluster_size=4k", false},
    {"Cluster2M", "-o cluster_size=2M", false},
    {"Refcount1", "-o refcount_bits=1", false},
    {"Refcount2", "-o refcount_bits=2", false},
    {"Refcount4", "-o refcount_bits=4", false},
    {"Refcount8", "-o refcount_bits=8", false},
    {"Refcount32", "-o refcount_bits=32", false},
    {"Refcount64Cluster512", "-o refcount_bits=64,cluster_size=512", true},
    {"LazyRefcounts", "-o lazy_refcounts=on", false},
    {"CompressedZlib", "-c", false},
    {"CompressedZstd", "-c -o compression_type=zstd", false},
    {"CompressedVersion2Cluster4K", "-c -o compat=0.10,cluster_size=4k", false},
    {"CompressedCluster2M", "-c -o cluster_size=2M", false},
    {"PreallocatedMetadata", "-o preallocation=metadata", false},
    {"PreallocatedFalloc", "-o preallocation=falloc", false},
    {"PreallocatedFull", "-o preallocation=full", false},
};

// A disk of numbered sectors, half of them zeroes.
kj::Array<kj::byte> sample() {
  auto bytes = kj::heapArray<kj::byte>(DISK_BYTES);
  memset(bytes.begin(), 0, bytes.size());
  for (uint64_t sector = 0; sector < DISK_BYTES / 512; sector++) {
    if (sector / 300 % 2 == 1) continue;
    uint64_t tag = 1000000 + sector;
    for (size_t at = 0; at < 512; at += sizeof(tag))
      memcpy(bytes.begin() + sector * 512 + at, &tag, sizeof(tag));
  }
  return bytes;
}

class QemuImg: public ::testing::TestWithParam<Variant> {
 protected:
  void makeSample() {
    folder.store("sample.raw", sample());
    folder.run(kj::str("qemu-img convert -f raw -O qcow2 ", GetParam().options,
                       " sample.raw image.qcow2"));
  }
  // Random requests, reopening in between; then as qemu-img sees it.
  void workload(kj::ArrayPtr<const kj::byte> before) {
    MemoryFile file(folder.load("image.qcow2"));
    TaggedDisk guest(DISK_BYTES, 7);
    guest.adopt(before);
    for (int round = 0; round < 4; round++) {
      auto image = openAlone(file);
      for (int i = 0; i < (GetParam().patient ? 40 : 150); i++)
        ASSERT_EQ(guest.step(*image, file), 0);
      ASSERT_EQ(guest.flush(*image), 0);
      ASSERT_EQ(guest.wrong(WholeDisk(*image, file).contents()), 0);
      ASSERT_EQ(image->close(), 0);
      folder.store("image.qcow2", file.contents());
      EXPECT_EQ(std::string(folder.check("image.qcow2").cStr()), "");
      EXPECT_EQ(guest.wrong(folder.disk("image.qcow2")), 0);
    }
  }
  QemuFolder folder;
};

INSTANTIATE_TEST_SUITE_P(Variants, QemuImg, ::testing::ValuesIn(VARIANTS),
                         [](auto& info) { return info.param.name; });

TEST_P(QemuImg, ReadsWhatQemuWrote) {
  makeSample();
  MemoryFile file(folder.load("image.qcow2"));
  auto image = openAlone(file, Access::READ_ONLY);
  EXPECT_TRUE(WholeDisk(*image, file).contents() == sample());
}

TEST_P(QemuImg, WritesWhatQemuReadsAndFindsSound) {
  makeSample();
  workload(sample());
}

TEST_P(QemuImg, FillsAnEmptyImage) {
  const char* options = GetParam().options;
  if (options[0] == '-' && options[1] == 'c') options += 2;  // there is no data to compress
  folder.run(kj::str("qemu-img create -f qcow2 ", options, " image.qcow2 ", DISK_BYTES));
  auto zeroes = kj::heapArray<kj::byte>(DISK_BYTES);
  memset(zeroes.begin(), 0, zeroes.size());
  workload(zeroes);
}

TEST_P(QemuImg, SnapshotsStayAsTheyWere) {
  if (std::string(GetParam().name) == "Refcount1") return;  // has no room for a second user
  makeSample();
  folder.run("qemu-img snapshot -c one image.qcow2");
  workload(sample());
  folder.run("qemu-img snapshot -a one image.qcow2");
  EXPECT_TRUE(folder.disk("image.qcow2") == sample());
  folder.run("qemu-img snapshot -d one image.qcow2");
  EXPECT_EQ(std::string(folder.check("image.qcow2").cStr()), "");
}

TEST_P(QemuImg, GrowsADisk) {
  makeSample();
  MemoryFile file(folder.load("image.qcow2"));
  auto image = openAlone(file);
  uint64_t larger = 40 << 20;
  ASSERT_EQ(image->grow(larger), 0);
  kj::byte tail[512];
  memset(tail, 0x77, sizeof(tail));
  ASSERT_EQ(WholeDisk(*image, file).write(larger - 512, tail), 0);
  ASSERT_EQ(image->close(), 0);
  folder.store("image.qcow2", file.contents());
  EXPECT_EQ(std::string(folder.check("image.qcow2").cStr()), "");
  auto disk = folder.disk("image.qcow2");
  ASSERT_EQ(disk.size(), larger);
  EXPECT_TRUE(disk.slice(0, DISK_BYTES) == sample());
  for (uint64_t at = DISK_BYTES; at < larger - 512; at++)
    ASSERT_EQ(disk[at], 0) << at;
  EXPECT_EQ(disk[larger - 1], 0x77);
}

TEST(QemuImgBitmaps, AreDeclaredInconsistentByTheFirstWrite) {
  QemuFolder folder;
  folder.run("qemu-img create -f qcow2 image.qcow2 1M");
  folder.run("qemu-img bitmap --add image.qcow2 changes");
  MemoryFile file(folder.load("image.qcow2"));
  {
    auto image = openAlone(file);
    EXPECT_EQ(image->header().autoclear, 1u);
    kj::byte sector[512] = {1};
    EXPECT_EQ(WholeDisk(*image, file).write(0, sector), 0);
    EXPECT_EQ(image->close(), 0);
  }
  auto header = parseHeader(file.contents(), file.size(), Access::READ_WRITE);
  EXPECT_EQ(header.autoclear, 0u);
  folder.store("image.qcow2", file.contents());
  auto said = folder.check("image.qcow2");
  EXPECT_TRUE(said == "" || said == "leaks") << said.cStr();
}

// A chain of three: raw at the bottom, shorter than those above it.
class QemuChain: public ::testing::Test {
 protected:
  QemuChain() {
    folder.store("base.raw", sample());
    folder.run("qemu-img create -f qcow2 -F raw -b base.raw middle.qcow2 4M");
    folder.run("qemu-io -c 'write -P 0x21 100k 300k' middle.qcow2");
    folder.run("qemu-img create -f qcow2 -F qcow2 -b middle.qcow2 image.qcow2 5M");
    folder.run("qemu-io -c 'write -P 0x22 200k 20k' -c 'write -z 1M 128k' image.qcow2");
  }
  QemuFolder folder;
};

TEST_F(QemuChain, ReadsAndWritesThroughIt) {
  auto before = folder.disk("image.qcow2");
  MemoryFile top(folder.load("image.qcow2"));
  MemoryFile middle(folder.load("middle.qcow2"));
  MemoryFile base(folder.load("base.raw"));
  ChainFile files[] = {{top, ImageFormat::QCOW2, "image.qcow2"},
                       {middle, ImageFormat::QCOW2, "middle.qcow2"},
                       {base, ImageFormat::RAW, "base.raw"}};
  auto image = openChain(files, Access::READ_WRITE);
  WholeDisk disk(*image, top);
  auto now = disk.contents();
  for (size_t i = 0; i < before.size(); i++)
    ASSERT_EQ(now[i], before[i]) << i;
  kj::byte sectors[1536];
  memset(sectors, 0x33, sizeof(sectors));
  for (uint64_t at : {0ul, 130ul << 10, (3ul << 20) - 512, (4ul << 20) - 512, (5ul << 20) - 1536}) {
    ASSERT_EQ(disk.write(at, sectors), 0);
    memcpy(before.begin() + at, sectors, sizeof(sectors));
  }
  ASSERT_EQ(image->discard(64 << 10, 64 << 10), 0);
  memset(before.begin() + (64 << 10), 0, 64 << 10);
  ASSERT_EQ(image->close(), 0);
  EXPECT_TRUE(disk.contents() == before);
  folder.store("image.qcow2", top.contents());
  EXPECT_EQ(std::string(folder.check("image.qcow2").cStr()), "");
  EXPECT_TRUE(folder.disk("image.qcow2") == before);
}

TEST_F(QemuChain, GrowingHidesWhatALongerBackingFileHas) {
  folder.run("qemu-img create -f qcow2 -F raw -b base.raw short.qcow2 1M");
  MemoryFile top(folder.load("short.qcow2"));
  MemoryFile base(folder.load("base.raw"));
  ChainFile files[] = {{top, ImageFormat::QCOW2, "short.qcow2"},
                       {base, ImageFormat::RAW, "base.raw"}};
  auto image = openChain(files, Access::READ_WRITE);
  ASSERT_EQ(image->grow(8 << 20), 0);
  ASSERT_EQ(image->close(), 0);
  folder.store("short.qcow2", top.contents());
  auto disk = folder.disk("short.qcow2");
  EXPECT_TRUE(disk.slice(0, 1 << 20) == sample().slice(0, 1 << 20));
  for (uint64_t at = 1 << 20; at < disk.size(); at++)
    ASSERT_EQ(disk[at], 0) << at;
}

}  // namespace
}  // namespace troupe::blk::qcow2
