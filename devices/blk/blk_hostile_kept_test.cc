// A process that was taken over leaves what it likes in the memory that its successor reads: queue
// journals, mappings of an image, bits of a volatile disk. The successor refuses it with a code, or
// asks for a reset, or goes on. It never dies of it, and the image is sound.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <iostream>
#include <random>
#include <string>

#include "devices/blk/testing/checking_driver.h"
#include "devices/blk/testing/killed_image.h"
#include "devices/blk/testing/mortal_disk.h"

namespace troupe::blk {
namespace {

using testing::CheckingDriver;
using testing::KilledImage;
using testing::MortalDisk;

constexpr uint64_t DISK_BYTES = 8 << 20;
constexpr int ROUNDS = 40;
constexpr uint64_t COUNTER_BYTES =
    4096;  // in front of the journals (devices/virtio/queue_counters.h)

// Words that mean something: small numbers, places of clusters, all of them with and without flags.
uint64_t aWord(std::mt19937_64& random) {
  switch (random() % 4) {
    case 0:
      return random();
    case 1:
      return random() % 64;
    case 2:
      return ~uint64_t(0) << random() % 64;
    default:
      return (random() % 4096) << 12 | (random() % 4 == 0 ? 1 : 0);
  }
}

// From the byte `begin` on, and most of it where something is written: at the front.
void corrupt(int fd, uint64_t begin, std::mt19937_64& random) {
  off_t size;
  KJ_SYSCALL(size = lseek(fd, 0, SEEK_END));
  for (int changes = 1 + random() % 8; changes > 0; changes--) {
    uint64_t within = random() % 3 == 0 ? size - begin : random() % 2 == 0 ? 4096 : 128;
    uint64_t word = aWord(random);
    KJ_SYSCALL(pwrite(fd, &word, sizeof(word), begin + random() % (within / 8) * 8));
  }
}

class BlkHostileKept: public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Kinds, BlkHostileKept,
                         ::testing::Values("Fresh64K", "Fresh512", "Lazy", "Snapshot",
                                           "VolatileRaw", "VolatileImage"),
                         [](auto& info) { return info.param; });

TEST_P(BlkHostileKept, TheNextProcessRefusesItOrGoesOn) {
  auto& kind = KilledImage::kind(GetParam());
  int refused = 0;
  for (int round = 0; round < ROUNDS; round++) {
    SCOPED_TRACE(round);
    std::mt19937_64 random(round);
    KilledImage image(kind, DISK_BYTES);
    auto before = image.file();
    CheckingDriver driver(round, image.contents(), 2);
    MortalDisk disk(driver);
    image.handTo(disk);
    disk.begin();
    disk.serveFor(std::chrono::microseconds(random() % 3000));
    disk.kill();
    if (random() % 4 == 0) {
      corrupt(disk.journal(), COUNTER_BYTES, random);
    } else {
      corrupt(image.kept(), 0, random);
    }

    auto failure = kj::runCatchingExceptions([&] { disk.begin(); });
    if (failure == nullptr) {
      disk.process().reset();  // what was in flight is served or dropped
      disk.end();
    } else {
      ++refused;
      int status = disk.waitForExit();
      ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
    }
    if (kind.isVolatile) {
      ASSERT_TRUE(image.file() == before);
    } else {
      auto flaws = image.flaws();
      // One that was refused may have been in the midst of its work.
      ASSERT_TRUE(flaws == "" || flaws == "leaks" || (failure != nullptr && kind.isLazy()))
          << flaws;
    }
  }
  std::cout << refused << " of " << ROUNDS << " refused\n";
}

}  // namespace
}  // namespace troupe::blk
