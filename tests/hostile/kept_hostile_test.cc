// What a process leaves behind when somebody has broken into it, or when it dies at the wrong
// moment: whoever takes its place goes on, or asks for a reset that heals it. Every device that is
// replaced, as it ships, in its jail.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/mman.h>

#include <cstring>
#include <random>

#include "devices/virtio/queue_counters.h"
#include "devices/virtio/queue_journal.h"
#include "sandbox/shared_memory.h"
#include "tests/hostile/devices.h"
#include "tests/hostile/ring_guest.h"

namespace troupe::hostile {
namespace {

constexpr uint64_t JOURNAL_BYTES = 16 << 20;
constexpr uint64_t ENGINE = virtio::QUEUE_JOURNALS_BYTES;  // from where on the engine keeps things
constexpr uint64_t PORT_BYTES = (1 << 20) + 8192;          // what a console keeps of one port

// The memory that outlives the processes, as the last of them may write it.
struct Kept {
  Kept() {
    void* address =
        mmap(nullptr, JOURNAL_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory.writable, 0);
    KJ_ASSERT(address != MAP_FAILED);
    bytes = kj::arrayPtr(static_cast<kj::byte*>(address), JOURNAL_BYTES);
  }
  ~Kept() noexcept { munmap(bytes.begin(), bytes.size()); }

  // Places that somebody reads: the journals of some queues, what engines keep first, and that of
  // further ports.
  uint64_t anywhere(std::mt19937_64& random) {
    uint64_t begins[] = {sizeof(virtio::CounterPage), ENGINE, ENGINE + PORT_BYTES,
                         ENGINE + 2 * PORT_BYTES};
    return begins[random() % 4] + random() % 512 * 8;
  }
  void write(uint64_t at, uint64_t word) { memcpy(bytes.begin() + at, &word, sizeof(word)); }
  uint64_t read(uint64_t at) {
    uint64_t word;
    memcpy(&word, bytes.begin() + at, sizeof(word));
    return word;
  }

  sandbox::SharedMemory memory = sandbox::makeSharedMemory("journals", JOURNAL_BYTES);
  kj::ArrayPtr<kj::byte> bytes;
};

class KeptHostile: public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Devices, KeptHostile, ::testing::ValuesIn(REPLACED_DEVICES), deviceName);

TEST_P(KeptHostile, BRK10_WhateverIsLeftASuccessorGoesOnOrAsksForAResetWhichHeals) {
  Kept kept;
  RingGuest guest(GetParam(), kept.memory.writable.get());
  std::mt19937_64 random(1);
  int resets = 0;
  constexpr int ROUNDS = 40;
  for (int round = 0; round < ROUNDS; round++) {
    SCOPED_TRACE(round);
    guest.activate();
    auto& driver = guest.driver();
    for (int i = random() % 4; i >= 0; i--)
      driver.add(guest.goodRequest());
    guest.process->kick(guest.goodQueue());
    if (round % 2) guest.process->waitUntil([&] { return driver.takeUsed() != nullptr; });
    guest.kill();

    int words = round % 5 == 0 ? 1 : round % 5 == 1 ? 20 : 2000;
    for (int i = 0; i < words; i++) {
      uint64_t at = kept.anywhere(random);
      uint64_t word = kept.read(at);
      switch (random() % 6) {
        case 0:
          word = random();
          break;
        case 1:
          word = random() % 300;
          break;
        case 2:
          word ^= 1ull << random() % 64;
          break;
        case 3:
          word += random() % 3 - 1;
          break;
        case 4:
          word = UINT64_MAX - random() % 300;
          break;
        default:
          word = kept.read(kept.anywhere(random));
          break;
      }
      kept.write(at, word);
    }
    if (round == 11) memset(kept.bytes.begin(), 0xff, kept.bytes.size());
    if (round == 12) memset(kept.bytes.begin(), 0, kept.bytes.size());

    guest.replace();
    for (uint16_t queue = 0; queue < guest.queueCount(); queue++)
      guest.process->kick(queue);
    guest.process->settle();
    resets += guest.askedForReset();
    guest.reset();
    guest.expectWell();
  }
  EXPECT_GT(resets, 0) << "garbage that nobody noticed";
  EXPECT_LT(resets, ROUNDS) << "all of it refused: then nobody is replaced";
  guest.expectUntouched();
}

// Another driver than that of the dead process: nothing of the latter's comes up again.
TEST_P(KeptHostile, BRK10_WhatIsLeftOfAnotherDriverIsForgotten) {
  Kept kept;
  RingGuest guest(GetParam(), kept.memory.writable.get());
  guest.activate();
  guest.driver().add(guest.goodRequest());
  guest.kill();
  guest.process = nullptr;
  guest.restart();
  guest.expectWell();
  guest.expectUntouched();
}

}  // namespace
}  // namespace troupe::hostile
