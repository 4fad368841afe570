// Images cut at any point: when the process is killed, all that was written is there; when the
// machine loses its power, of what was not synced any part.
#include <errno.h>
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <random>
#include <string>

#include "devices/blk/qcow2/testing/blank_image.h"
#include "devices/blk/qcow2/testing/memory_file.h"
#include "devices/blk/qcow2/testing/qemu_img.h"
#include "devices/blk/qcow2/testing/tagged_disk.h"
#include "devices/blk/qcow2/testing/whole_disk.h"

namespace troupe::blk::qcow2 {
namespace {

using testing::BlankImage;
using testing::makeBlank;
using testing::MemoryFile;
using testing::openAlone;
using testing::QemuFolder;
using testing::TaggedDisk;
using testing::WholeDisk;

constexpr uint64_t DISK_BYTES = 1 << 20;

struct Variant {
  const char* name;
  uint32_t clusterBits;
  uint32_t refcountOrder;
  bool lazy;
  bool snapshot;
};
void PrintTo(const Variant& variant, std::ostream* out) {
  *out << variant.name;
}

const Variant VARIANTS[] = {
    {"Clusters64K", 16, 4, false, false}, {"Clusters4K", 12, 4, false, false},
    {"Clusters512", 9, 4, false, false},  {"Counts64Clusters512", 9, 6, false, false},
    {"Lazy", 16, 4, true, false},         {"LazyClusters512", 9, 4, true, false},
    {"WithSnapshot", 12, 4, false, true},
};

class Qcow2Cut: public ::testing::TestWithParam<Variant> {
 protected:
  // An image in which the guest has worked for a while already.
  kj::Array<kj::byte> begin(TaggedDisk& guest) {
    BlankImage blank;
    blank.clusterBits = GetParam().clusterBits;
    blank.refcountOrder = GetParam().refcountOrder;
    blank.lazyRefcounts = GetParam().lazy;
    blank.size = 256 << 10;  // a single block of counts is all a blank image has
    MemoryFile file(makeBlank(blank));
    auto image = openAlone(file);
    KJ_ASSERT(image->grow(DISK_BYTES) == 0);
    for (int i = 0; i < 20; i++)
      KJ_ASSERT(guest.step(*image, file) == 0);
    KJ_ASSERT(guest.flush(*image) == 0);
    KJ_ASSERT(image->close() == 0);
    if (!GetParam().snapshot) return kj::heapArray<kj::byte>(file.contents());
    folder.store("image.qcow2", file.contents());
    folder.run("qemu-img snapshot -c one image.qcow2");
    return folder.load("image.qcow2");
  }

  // What is left of an image holds what was flushed, and can be worked with; now and then qemu-img
  // is asked too.
  void inspect(kj::ArrayPtr<const kj::byte> left, const TaggedDisk& guest, bool askQemu) {
    MemoryFile file(left);
    auto image = openAlone(file);
    ASSERT_EQ(guest.wrong(WholeDisk(*image, file).contents()), 0u);
    ASSERT_EQ(image->close(), 0);
    if (!askQemu) return;
    folder.store("left.qcow2", file.contents());
    auto said = folder.check("left.qcow2");
    EXPECT_TRUE(said == "" || said == "leaks") << said.cStr();
  }

  QemuFolder folder;
};

INSTANTIATE_TEST_SUITE_P(Variants, Qcow2Cut, ::testing::ValuesIn(VARIANTS),
                         [](auto& info) { return info.param.name; });

TEST_P(Qcow2Cut, KilledAtAnyWrite) {
  TaggedDisk fresh(DISK_BYTES, 11);
  auto start = begin(fresh);
  for (uint64_t cut = 0; cut < 120; cut++) {
    TaggedDisk guest = fresh;
    MemoryFile file(start);
    auto image = openAlone(file);
    file.failAfter(cut * 3, EIO, true);  // from there on nothing reaches the file
    for (int i = 0; i < 150; i++)
      guest.step(*image, file);
    inspect(file.contents(), guest, cut % 10 == 0);
    if (HasFatalFailure()) FAIL() << "cut " << cut;
  }
}

TEST_P(Qcow2Cut, PowerLostAtAnyTime) {
  TaggedDisk fresh(DISK_BYTES, 12);
  auto start = begin(fresh);
  for (uint64_t cut = 0; cut < 120; cut++) {
    TaggedDisk guest = fresh;
    MemoryFile file(start);
    auto image = openAlone(file);
    file.failAfter(cut * 3, EIO, true);
    for (int i = 0; i < 150; i++)
      guest.step(*image, file);
    for (uint64_t seed = 0; seed < 3; seed++) {
      inspect(file.afterPowerLoss(seed), guest, cut % 10 == 0 && seed == 0);
      if (HasFatalFailure()) FAIL() << "cut " << cut << " seed " << seed;
    }
  }
}

}  // namespace
}  // namespace troupe::blk::qcow2
