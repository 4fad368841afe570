// TOC-01: whatever the guest shares is read once, as the processor sees it.
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <map>
#include <string>
#include <vector>

#include "devices/virtio/testing/access_recorder.h"
#include "devices/virtio/testing/fake_driver.h"
#include "devices/virtio/testing/fake_ram.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::virtio {
namespace {

using testing::AccessRecorder;
using testing::Buffer;
using testing::FakeDriver;
using testing::FakeRam;
using testing::readable;
using testing::writable;

std::string readAt(uint64_t address) {
  return "read " + std::to_string(address);
}
std::string writeAt(uint64_t address) {
  return "write " + std::to_string(address);
}

std::vector<std::string> inWords(kj::ArrayPtr<const AccessRecorder::Access> accesses) {
  std::vector<std::string> words;
  for (auto& access : accesses) {
    words.push_back(access.isWrite ? writeAt(access.offset) : readAt(access.offset));
  }
  return words;
}

// One request with an indirect table, from the look at the index to the decision on the interrupt:
// the list below is every touch of guest memory there is.
TEST(SingleRead, TOC01_EachRingWordOncePerRequest) {
  for (bool eventIndex : {true, false}) {
    FakeRam ram(FakeRam::MIB);
    RingFeatures features{true, eventIndex};
    FakeDriver driver(ram, 16, features);
    GuestMemory memory = ram.memory();
    Virtqueue queue(memory, driver.layout(), features);
    uint16_t head =
        driver.addIndirect({readable(0x20000, 16), writable(0x30000, 4096), writable(0x40000, 1)});
    RingLayout at = driver.layout();
    uint64_t table = driver.readDescriptor(head).address;
    uint64_t entry = at.descriptorTable + head * 16;

    AccessRecorder recorder(ram.bytes(0, FakeRam::MIB));
    auto maybeChain = queue.pop();
    Chain chain = kj::mv(KJ_ASSERT_NONNULL(maybeChain));
    bool tail = chain.reserveTail(1);
    queue.push(kj::mv(chain), 4097);
    bool interrupt = queue.publish();
    auto accesses = inWords(recorder.finish());

    EXPECT_TRUE(tail);
    EXPECT_TRUE(interrupt);
    std::vector<std::string> expected = {
        readAt(at.availableRing + 2),  // the index
        readAt(at.availableRing + 4),  // ring[0]
        readAt(entry),
        readAt(entry + 8),
        readAt(table),
        readAt(table + 8),
        readAt(table + 16),
        readAt(table + 24),
        readAt(table + 32),
        readAt(table + 40),
        writeAt(at.usedRing + 4),
        writeAt(at.usedRing + 8),  // element 0
        writeAt(at.usedRing + 2),  // the index
        eventIndex ? readAt(at.availableRing + 4 + 2 * 16) : readAt(at.availableRing),
    };
    EXPECT_EQ(accesses, expected);
  }
}

// A batch looks at the available index once, and writes the used index once.
TEST(SingleRead, TOC01_IndicesOncePerBatch) {
  FakeRam ram(FakeRam::MIB);
  FakeDriver driver(ram, 16);
  GuestMemory memory = ram.memory();
  Virtqueue queue(memory, driver.layout(), driver.ringFeatures());
  for (int i = 0; i < 4; i++)
    driver.add({readable(0x20000, 16), writable(0x30000, 16)});
  RingLayout at = driver.layout();

  AccessRecorder recorder(ram.bytes(0, FakeRam::MIB));
  for (int i = 0; i < 4; i++) {
    auto chain = queue.pop();
    queue.push(kj::mv(KJ_ASSERT_NONNULL(chain)), 0);
  }
  queue.publish();
  std::map<uint64_t, int> touched;
  for (const AccessRecorder::Access& access : recorder.finish())
    ++touched[access.offset];

  EXPECT_EQ(touched[at.availableRing + 2], 1);
  EXPECT_EQ(touched[at.usedRing + 2], 1);
  for (auto [address, times] : touched)
    EXPECT_EQ(times, 1) << address;
}

// A spinning reader touches one word.
TEST(SingleRead, TOC01_HasWorkIsOneLoad) {
  FakeRam ram(FakeRam::MIB);
  FakeDriver driver(ram, 16);
  GuestMemory memory = ram.memory();
  Virtqueue queue(memory, driver.layout(), driver.ringFeatures());
  AccessRecorder recorder(ram.bytes(0, FakeRam::MIB));
  bool work = queue.hasWork();
  auto accesses = inWords(recorder.finish());
  EXPECT_FALSE(work);
  EXPECT_EQ(accesses, std::vector<std::string>{readAt(driver.layout().availableRing + 2)});
}

// A header is copied out once, wherever the driver split it.
TEST(SingleRead, TOC01_HeaderBytesAreCopiedOnce) {
  FakeRam ram(FakeRam::MIB);
  FakeDriver driver(ram, 16);
  GuestMemory memory = ram.memory();
  Virtqueue queue(memory, driver.layout(), driver.ringFeatures());
  driver.add({readable(0x20000, 8), readable(0x30000, 4), readable(0x40000, 4)});
  auto chain = queue.pop();
  kj::byte header[16];
  AccessRecorder recorder(ram.bytes(0, FakeRam::MIB));
  bool whole = KJ_ASSERT_NONNULL(chain).read(header);
  auto accesses = inWords(recorder.finish());
  EXPECT_TRUE(whole);
  EXPECT_EQ(accesses,
            (std::vector<std::string>{readAt(0x20000), readAt(0x30000), readAt(0x40000)}));
}

// The recorder itself can fail: a second read is seen.
TEST(SingleRead, RecorderSeesADoubleFetch) {
  FakeRam ram(FakeRam::MIB);
  kj::byte* word = ram.bytes(64, 8).begin();
  AccessRecorder recorder(ram.bytes(0, FakeRam::MIB));
  uint64_t sum = loadWord<uint64_t>(word) + loadWord<uint64_t>(word);
  auto accesses = recorder.finish();
  EXPECT_EQ(sum, 2 * 0xa5a5a5a5a5a5a5a5);
  EXPECT_EQ(accesses.size(), 2);
}

}  // namespace
}  // namespace troupe::virtio
