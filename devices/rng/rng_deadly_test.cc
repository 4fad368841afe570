// A request that its device dies of, with this test as troupe, broker and driver.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <map>

#include "devices/rng/rng_profile.h"
#include "devices/virtio/kept_memory.h"
#include "devices/virtio/quarantine.h"
#include "devices/virtio/queue_counters.h"
#include "devices/virtio/testing/process_bench.h"
#include "sandbox/shared_memory.h"

namespace troupe::rng {
namespace {

using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;
using virtio::testing::writable;

constexpr uint64_t FEATURES = virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;
constexpr uint64_t KEPT_BYTES = 1 << 20;
constexpr uint32_t DEADLY = 1313;  // devices/crashing_devices.cc

struct Fixture {
  Fixture() {
    void* place = mmap(nullptr, KEPT_BYTES, PROT_READ, MAP_SHARED, kept.readOnly, 0);
    KJ_ASSERT(place != MAP_FAILED);
    memory = kj::arrayPtr(static_cast<kj::byte*>(place), KEPT_BYTES);
  }
  ~Fixture() { munmap(memory.begin(), memory.size()); }

  uint16_t add(uint32_t bytes) { return driver.add({writable(ram.allocate(4096), bytes)}); }

  kj::Own<ProcessBench> begin(bool isFirst) {
    HandedFd fds[] = {{"journal", 0, kept.writable}};
    auto process = kj::heap<ProcessBench>(ram, RNG_PROFILE, "troupe-rng", 1, fds, nullptr,
                                          "devices/crashing_devices");
    process->attach();
    auto request = process->activateRequest(FEATURES, {&driver});
    request.setResumed(!isFirst);
    request.setOwnFault(!isFirst);
    // It may die before it answers.
    answer = request.send().ignoreResult().eagerlyEvaluate([](kj::Exception&&) {});
    return process;
  }

  sandbox::SharedMemory kept = sandbox::makeSharedMemory("journals", KEPT_BYTES);
  kj::ArrayPtr<kj::byte> memory;
  FakeRam ram{4 * FakeRam::MIB};
  FakeDriver driver{ram, 8};
  kj::Promise<void> answer = nullptr;
};

TEST(RngDeadly, ARequestThatTwoProcessesDiedOfIsAnsweredWithNothingAndPutAside) {
  Fixture f;
  f.add(64);
  uint16_t deadly = f.add(DEADLY);
  f.add(128);
  f.add(256 + 1);
  for (bool isFirst : {true, false}) {
    auto process = f.begin(isFirst);
    int status = process->waitForExit();
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL) << status;
    f.answer = nullptr;
  }
  auto process = f.begin(false);
  std::map<uint32_t, uint32_t> answers;
  for (int i = 0; i < 4; i++) {
    auto used = process->waitForUsed(0, f.driver);
    EXPECT_TRUE(answers.emplace(used.head, used.written).second) << "answered twice";
  }
  ASSERT_EQ(answers.size(), 4u);
  for (auto& answer : answers)
    EXPECT_EQ(answer.second == 0, answer.first == deadly) << answer.first;

  virtio::KeptMemory parts(f.memory.slice(sizeof(virtio::CounterPage), f.memory.size()));
  virtio::Quarantine quarantine(parts.quarantine);
  ASSERT_EQ(quarantine.count(), 1u);
  auto put = quarantine.read(0);
  EXPECT_EQ(KJ_ASSERT_NONNULL(put).request.head, deadly);
  EXPECT_EQ(KJ_ASSERT_NONNULL(put).request.writableBytes, DEADLY);
  f.answer = nullptr;
}

}  // namespace
}  // namespace troupe::rng
