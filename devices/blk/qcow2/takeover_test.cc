// A process that ends amid its work on an image, and the one that takes its place: with the file as
// it is and the journal it kept, the guest goes on as if nothing had been. And journals by somebody
// hostile.
#include <errno.h>
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "devices/blk/qcow2/check.h"
#include "devices/blk/qcow2/mapping_journal.h"
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
constexpr size_t JOURNAL_WORDS = (64 + MappingJournal::ROOM * 2 * 16) / 8;

struct Killed {};

// A file in the hands of a process that is killed amid the n-th call that changes it.
class MortalFile final: public ImageFile {
 public:
  MortalFile(MemoryFile& inner, uint64_t callsToLive) : inner(inner), left(callsToLive) {}
  void liveFor(uint64_t calls) { left = calls; }
  uint64_t callsLeft() const { return left; }

  int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override {
    return inner.read(pieces, offset);
  }
  // The last one gets as far as its first half.
  int64_t write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override {
    if (left > 0) return count(), inner.write(pieces, offset);
    iovec half = pieces[0];
    half.iov_len = half.iov_len / 2 & ~size_t(511);
    if (half.iov_len > 0) inner.write(kj::arrayPtr(&half, 1), offset);
    throw Killed();
  }
  int sync() override { return count(), inner.sync(); }
  int truncate(uint64_t bytes) override { return count(), inner.truncate(bytes); }
  int punch(uint64_t offset, uint64_t bytes) override {
    return count(), inner.punch(offset, bytes);
  }
  uint64_t size() override { return inner.size(); }
  uint32_t blockBytes() const override { return inner.blockBytes(); }

 private:
  void count() {
    if (left-- == 0) throw Killed();
  }
  MemoryFile& inner;
  uint64_t left;
};

struct Variant {
  const char* name;
  uint32_t version;
  uint32_t clusterBits;
  uint32_t refcountOrder;
  bool lazy;
  bool snapshot;
};
void PrintTo(const Variant& variant, std::ostream* out) {
  *out << variant.name;
}

const Variant VARIANTS[] = {
    {"Clusters64K", 3, 16, 4, false, false},   {"Clusters4K", 3, 12, 4, false, false},
    {"Clusters512", 3, 9, 4, false, false},    {"Counts64Clusters512", 3, 9, 6, false, false},
    {"Version2", 2, 12, 4, false, false},      {"LazyClusters4K", 3, 12, 4, true, false},
    {"LazyClusters512", 3, 9, 4, true, false}, {"WithSnapshot", 3, 12, 4, false, true},
};

class Qcow2Takeover: public ::testing::TestWithParam<Variant> {
 protected:
  Qcow2Takeover() : words(JOURNAL_WORDS) {}

  kj::ArrayPtr<kj::byte> memory() {
    return kj::arrayPtr(reinterpret_cast<kj::byte*>(words.data()), words.size() * 8);
  }

  // An image in which the guest has worked for a while already.
  kj::Array<kj::byte> begin(TaggedDisk& guest) {
    BlankImage blank;
    blank.version = GetParam().version;
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

  // Gives the whole disk back and commits that, by a process that dies amid a call of the commit.
  // Returns how many calls it came to make.
  uint64_t commit(MemoryFile& file, uint64_t callsToLive) {
    MappingJournal journal(memory());
    MortalFile mortal(file, UINT64_MAX);
    auto image = openAlone(mortal, Access::READ_WRITE, journal);
    KJ_ASSERT(image->discard(0, DISK_BYTES) == 0);
    mortal.liveFor(callsToLive);
    KJ_ASSERT(image->flush() == 0);
    return callsToLive - mortal.callsLeft();
  }

  uint64_t callsOfACommit(kj::ArrayPtr<const kj::byte> start) {
    MemoryFile file(start);
    std::fill(words.begin(), words.end(), 0);
    return commit(file, UINT64_MAX);
  }

  // Errors and leaks, as a text.
  static std::string flawsOf(kj::ArrayPtr<const kj::byte> bytes) {
    MemoryFile file(bytes);
    auto start = bytes.slice(0, kj::min(bytes.size(), size_t(2) << 20));
    auto header = parseHeader(start, bytes.size(), Access::READ_ONLY);
    auto result = check(file, header, Repair::NOTHING, [](uint64_t, uint64_t) {});
    return result.errors > 0 ? "errors" : result.leaks > 0 ? "leaks" : "";
  }

  std::vector<uint64_t> words;
  QemuFolder folder;
};

INSTANTIATE_TEST_SUITE_P(Variants, Qcow2Takeover, ::testing::ValuesIn(VARIANTS),
                         [](auto& info) { return info.param.name; });

TEST_P(Qcow2Takeover, AGuestGoesOnWhereverProcessesAreKilled) {
  TaggedDisk fresh(DISK_BYTES, 21);
  auto start = begin(fresh);
  std::mt19937_64 random(GetParam().clusterBits);
  for (int round = 0; round < 40; round++) {
    SCOPED_TRACE(round);
    TaggedDisk guest = fresh;
    MemoryFile file(start);
    std::fill(words.begin(), words.end(), 0);
    for (int life = 0; life < 6; life++) {
      bool isLast = life == 5;
      // Often amid the takeover itself.
      MortalFile mortal(file, isLast ? UINT64_MAX : random() % (life % 2 == 0 ? 400 : 40));
      try {
        MappingJournal journal(memory());
        auto image = openAlone(mortal, Access::READ_WRITE, journal);
        auto found = WholeDisk(*image, mortal).contents();
        ASSERT_EQ(guest.wrongForOneThatWentOn(found), 0u);
        guest.learn(found);
        for (int i = 0; i < (isLast ? 5 : 200); i++)
          ASSERT_EQ(guest.step(*image, mortal), 0);
        if (!isLast) continue;  // and is killed while it has nothing to do
        ASSERT_EQ(guest.wrongForOneThatWentOn(WholeDisk(*image, mortal).contents()), 0u);
        ASSERT_EQ(image->close(), 0);
        EXPECT_TRUE(journal.recover() == nullptr);
      } catch (const Killed&) {
        auto flaws = flawsOf(file.contents());
        ASSERT_TRUE(flaws != "errors" || GetParam().lazy) << flaws;
      }
    }
    ASSERT_EQ(flawsOf(file.contents()), "");
    if (round % 20 != 0) continue;
    folder.store("image.qcow2", file.contents());
    EXPECT_EQ(std::string(folder.check("image.qcow2").cStr()), "");
  }
}

// What the process before had not synced may be lost with the power, after it and during what comes
// after it: then the guest has what it flushed.
TEST_P(Qcow2Takeover, AndThePowerMayGoMeanwhile) {
  TaggedDisk fresh(DISK_BYTES, 22);
  auto start = begin(fresh);
  std::mt19937_64 random(GetParam().clusterBits + 1);
  for (int round = 0; round < 30; round++) {
    SCOPED_TRACE(round);
    TaggedDisk guest = fresh;
    MemoryFile file(start);
    std::fill(words.begin(), words.end(), 0);
    for (int life = 0; life < 3; life++) {
      MortalFile mortal(file, random() % (life == 0 ? 400 : 60));
      try {
        MappingJournal journal(memory());
        auto image = openAlone(mortal, Access::READ_WRITE, journal);
        guest.learn(WholeDisk(*image, mortal).contents());
        for (;;)
          ASSERT_EQ(guest.step(*image, mortal), 0);
      } catch (const Killed&) {
      }
      for (uint64_t seed = 0; seed < 2; seed++) {
        MemoryFile left(file.afterPowerLoss(seed));
        auto image = openAlone(left);
        ASSERT_EQ(guest.wrong(WholeDisk(*image, left).contents()), 0u);
        ASSERT_EQ(image->close(), 0);
        ASSERT_NE(flawsOf(left.contents()), "errors");
      }
    }
  }
}

// Half of a commit is in the file and not on the disk; the successor sees the one and may rely on
// the other alone.
TEST_P(Qcow2Takeover, NoCountIsLoweredBeforeTheDiskHasTheMapping) {
  if (GetParam().lazy) return;  // its counts may be wrong while it is marked dirty
  TaggedDisk guest(DISK_BYTES, 24);
  auto start = begin(guest);
  uint64_t calls = callsOfACommit(start);
  // Enough of them for each of a commit's parts; all of those of a short one.
  for (uint64_t first = 0; first < calls; first += 1 + calls / 40) {
    bool isOpen = false;  // its successor, before it is killed: later ends are no others
    for (uint64_t second = 0; second < 12 && !isOpen; second++) {
      SCOPED_TRACE(std::to_string(first) + ", " + std::to_string(second));
      MemoryFile file(start);
      std::fill(words.begin(), words.end(), 0);
      EXPECT_THROW(commit(file, first), Killed);
      try {
        MappingJournal journal(memory());
        MortalFile mortal(file, second);
        openAlone(mortal, Access::READ_WRITE, journal);
        isOpen = true;
      } catch (const Killed&) {
      }
      for (uint64_t seed = 0; seed < 4; seed++)
        ASSERT_NE(flawsOf(file.afterPowerLoss(seed)), "errors") << seed;
    }
  }
}

TEST_P(Qcow2Takeover, AJournalThatIsFullIsEmptiedByACommit) {
  BlankImage blank;
  blank.version = GetParam().version;
  blank.clusterBits = 9;
  blank.size = 32 << 10;
  MemoryFile file(makeBlank(blank));
  MappingJournal journal(memory());
  auto image = openAlone(file, Access::READ_WRITE, journal);
  auto bytes = kj::heapArray<kj::byte>(16 << 10);
  memset(bytes.begin(), 0x5a, bytes.size());
  uint64_t syncs = file.syncs();
  // Each round maps and unmaps 32 clusters.
  for (int round = 0; round < 300; round++) {
    ASSERT_EQ(WholeDisk(*image, file).write(0, bytes), 0);
    ASSERT_EQ(image->discard(0, bytes.size()), 0);
  }
  EXPECT_GT(file.syncs(), syncs);
  EXPECT_TRUE(journal.hasRoom());
}

// What the journal says is changed at random, and where it hurts. The successor refuses it, or goes
// on with an image that is sound: what a journal can do is what the guest can do to its own disk.
TEST_P(Qcow2Takeover, AHostileJournalHarmsNoImage) {
  TaggedDisk fresh(DISK_BYTES, 23);
  auto start = begin(fresh);
  MemoryFile file(start);
  {
    MappingJournal journal(memory());
    auto image = openAlone(file, Access::READ_WRITE, journal);
    for (int i = 0; i < 40; i++)
      ASSERT_EQ(fresh.step(*image, file), 0);
  }
  auto left = kj::heapArray<kj::byte>(file.contents());
  auto kept = words;
  std::mt19937_64 random(GetParam().clusterBits + 2);
  uint64_t clusterBytes = 1ull << GetParam().clusterBits;
  uint64_t clusters = left.size() / clusterBytes;
  uint64_t guestClusters = DISK_BYTES / clusterBytes;
  int refused = 0, wentOn = 0;
  auto anEntry = [&]() -> uint64_t {
    uint64_t flags = random() % 4 == 0 ? ALL_ZEROES : random() % 4 == 0 ? COPIED : 0;
    switch (random() % 6) {
      case 0:
        return random();
      case 1:
        return flags;
      case 2:
        return uint64_t(1) << random() % 64;
      case 3:
        return (clusters + random() % 4) * clusterBytes | flags;
      default:
        return random() % clusters * clusterBytes | flags;
    }
  };
  for (int round = 0; round < 250; round++) {
    SCOPED_TRACE(round);
    words = kept;
    uint64_t count = words[0];
    for (uint64_t changes = 1 + random() % 4; changes > 0; changes--) {
      uint64_t record = count == 0 ? 0 : random() % count;
      switch (random() % 8) {
        case 0:
          words[0] = random() % 2 == 0 ? random() : random() % (count + 8);
          break;
        case 1:
          words[1] = random() % 3;
          break;
        case 2:
          words[8 + record * 2] = random() % 2 == 0 ? random() : random() % (2 * guestClusters);
          break;
        case 3:  // the same place twice
          words[8 + record * 2 + 1] = words[8 + (random() % (count + 1)) * 2 + 1];
          break;
        default:
          words[8 + record * 2 + 1] = anEntry();
          break;
      }
    }
    bool claimsToBeClosed = words[1] == 0;
    MemoryFile there(left);
    std::string why;
    try {
      MappingJournal journal(memory());
      auto image = openAlone(there, Access::READ_WRITE, journal);
      TaggedDisk guest(DISK_BYTES, round);
      guest.adopt(WholeDisk(*image, there).contents());
      for (int i = 0; i < 10; i++)
        ASSERT_EQ(guest.step(*image, there), 0);
      ASSERT_EQ(guest.wrongForOneThatWentOn(WholeDisk(*image, there).contents()), 0u);
      ASSERT_EQ(image->close(), 0);
      ++wentOn;
    } catch (const kj::Exception& refusal) {
      why = refusal.getDescription().cStr();
      ASSERT_NE(why.find("TRP-blk-029"), std::string::npos) << why;
      ++refused;
    }
    auto flaws = flawsOf(there.contents());
    if (why.empty() && !claimsToBeClosed) {
      ASSERT_EQ(flaws, "");
    } else {
      ASSERT_TRUE(flaws != "errors" || GetParam().lazy) << why;
    }
  }
  EXPECT_GT(refused, 20);
  EXPECT_GT(wentOn, 20);
}

TEST(MappingJournal, TellsTheLastOfEachClusterInOrder) {
  std::vector<uint64_t> words(JOURNAL_WORDS);
  auto memory = kj::arrayPtr(reinterpret_cast<kj::byte*>(words.data()), words.size() * 8);
  MappingJournal journal(memory);
  EXPECT_TRUE(journal.recover() == nullptr);
  journal.open();
  journal.add({7, 0x10000});
  journal.add({3, 0x20000});
  journal.add({7, 0x30000});
  auto records = KJ_ASSERT_NONNULL(MappingJournal(memory).recover());
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].cluster, 3u);
  EXPECT_EQ(records[0].entry, 0x20000u);
  EXPECT_EQ(records[1].cluster, 7u);
  EXPECT_EQ(records[1].entry, 0x30000u);
  journal.clear();
  EXPECT_EQ(KJ_ASSERT_NONNULL(journal.recover()).size(), 0u);
  journal.close();
  EXPECT_TRUE(journal.recover() == nullptr);
}

}  // namespace
}  // namespace troupe::blk::qcow2
