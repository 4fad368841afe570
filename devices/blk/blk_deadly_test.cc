// A request that processes of the device died of, with this test as troupe, broker and driver.
#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <unistd.h>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_profile.h"
#include "devices/blk/testing/blk_bench.h"
#include "devices/blk/testing/scratch_disk.h"
#include "devices/virtio/queue_counters.h"
#include "devices/virtio/testing/process_bench.h"
#include "sandbox/shared_memory.h"

namespace troupe::blk {
namespace {

using testing::Medium;
using testing::ScratchDisk;
using virtio::testing::FakeDriver;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint32_t BLOCK = 4096;
constexpr uint64_t KEPT_BYTES = 1 << 20;

class Driver: public testing::BlkDriver {
 public:
  Driver() { drivers.add(kj::heap<FakeDriver>(ram, 256)); }
};

// As two processes before leave it (queue_journal.h): the second died while it tried this one
// request alone.
TEST(BlkDeadly, ARequestThatTwoProcessesDiedOfIsAnsweredWithAnError) {
  ScratchDisk file(Medium::MEMORY, 16 * BLOCK);
  auto kept = sandbox::makeSharedMemory("journals", KEPT_BYTES);
  Driver driver;
  auto deadly = driver.sendWrite(0, testing::filled(BLOCK, 0x55));
  auto innocent = driver.sendWrite(BLOCK / 512, testing::filled(BLOCK, 0x66));
  constexpr uint64_t ONE_DEATH = uint64_t(1) << 56, IN_HAND = uint64_t(1) << 55;
  auto store = [&](uint64_t offset, uint64_t word) {
    offset += sizeof(virtio::CounterPage);
    KJ_ASSERT(pwrite(kept.writable, &word, sizeof(word), offset) == sizeof(word));
  };
  store(8, 1);  // of activation 1
  store(64 + 16 * deadly.head, ONE_DEATH | IN_HAND | 1);
  store(64 + 16 * innocent.head, ONE_DEATH | 2);

  capnp::MallocMessageBuilder message;
  message.initRoot<BlkConfig>().setId("deadly");
  HandedFd fds[] = {{"disk", 0, file.fd()}, {"journal", 0, kept.writable}};
  ProcessBench process(driver.ram, BLK_PROFILE, "troupe-blk", 1, fds,
                       message.getRoot<capnp::AnyPointer>().asReader());
  process.attach();
  auto request = process.activateRequest(testing::FEATURES, {&driver.driver()});
  request.setNumber(1);
  request.setResumed(true);
  request.setOwnFault(true);
  process.await(request.send().ignoreResult());
  for (int i = 0; i < 2; i++)
    process.waitForUsed(0, driver.driver());
  EXPECT_EQ(driver.status(deadly), virtio::BLK_S_IOERR);
  EXPECT_EQ(driver.status(innocent), virtio::BLK_S_OK);
  EXPECT_EQ(file.contents(0, 1)[0], testing::sectorByte(0));
  EXPECT_EQ(file.contents(BLOCK, 1)[0], 0x66);
}

}  // namespace
}  // namespace troupe::blk
