// A process that is killed amid its requests, again and again, and those that take its place: each
// request is answered once, and rightly. Disks of every kind; what the guest was answered is there,
// whether it was flushed or not, for the guest has not crashed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "devices/blk/testing/checking_driver.h"
#include "devices/blk/testing/killed_image.h"
#include "devices/blk/testing/mortal_disk.h"
#include "devices/blk/testing/scratch_disk.h"

namespace troupe::blk {
namespace {

using testing::CheckingDriver;
using testing::KilledImage;
using testing::Medium;
using testing::MortalDisk;
using testing::ScratchDisk;

constexpr uint64_t DISK_BYTES = 8 << 20;

int kills() {
  const char* said = getenv("TROUPE_TEST_KILLS");
  return said == nullptr ? 100 : atoi(said);
}

// Kills its process so often, at random moments, and lets the last one finish.
void killAgainAndAgain(MortalDisk& disk, CheckingDriver& driver, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<double> stallsMs;
  for (int life = 0; life < kills() && !::testing::Test::HasFailure(); life++) {
    disk.begin();
    double stall = disk.serveFor(std::chrono::microseconds(random() % 3000));
    if (stall >= 0 && life > 0) stallsMs.push_back(stall);
    disk.kill();
  }
  disk.begin();
  disk.serveUntilIdle();
  EXPECT_GT(driver.totalAnswered(), 0u);
  std::sort(stallsMs.begin(), stallsMs.end());
  if (stallsMs.size() > 1) {
    std::cout << kills() << " kills, " << driver.totalAnswered()
              << " answers; launch to first answer p50 " << stallsMs[stallsMs.size() / 2]
              << " ms, p99 " << stallsMs[stallsMs.size() * 99 / 100] << " ms\n";
  }
}

kj::AutoCloseFd duplicate(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return kj::AutoCloseFd(copy);
}

class BlkKilled: public ::testing::TestWithParam<Medium> {};
INSTANTIATE_TEST_SUITE_P(Media, BlkKilled,
                         ::testing::Values(Medium::MEMORY, Medium::CACHED, Medium::DIRECT));

TEST_P(BlkKilled, EachRequestIsAnsweredOnceWhereverItIsKilled) {
  if (!testing::isAvailable(GetParam())) GTEST_SKIP() << "/var/tmp is in memory";
  ScratchDisk file(GetParam(), DISK_BYTES);
  if (GetParam() == Medium::CACHED) file.dropCache();
  uint32_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  CheckingDriver driver(seed, file.contents(0, DISK_BYTES), 1);
  MortalDisk disk(driver);
  disk.hand("disk", 0, duplicate(file.fd()));
  killAgainAndAgain(disk, driver, seed + 1);
  disk.end();
  driver.expectHeldBy(file.contents(0, DISK_BYTES));
}

class BlkImageKilled: public ::testing::TestWithParam<KilledImage::Kind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, BlkImageKilled,
                         ::testing::ValuesIn(KilledImage::kinds().begin(),
                                             KilledImage::kinds().end()),
                         [](auto& info) { return info.param.name; });

TEST_P(BlkImageKilled, EachRequestIsAnsweredOnceWhereverItIsKilled) {
  uint32_t seed = std::random_device()();
  SCOPED_TRACE(seed);
  KilledImage image(GetParam(), DISK_BYTES);
  auto before = image.file();
  CheckingDriver driver(seed, image.contents(), 2);
  MortalDisk disk(driver);
  image.handTo(disk);
  killAgainAndAgain(disk, driver, seed + 1);
  if (GetParam().isVolatile) {
    driver.expectHeldBy(image.readAll(disk, driver));
    disk.end();
    EXPECT_TRUE(image.file() == before);
    return;
  }
  disk.end();
  EXPECT_EQ(image.flaws(), "");
  driver.expectHeldBy(image.contents());
}

// What the guest may use in a second is no more for the deaths, but for a burst each.
TEST(BlkKilledLimited, ARateHoldsOverAllProcesses) {
  constexpr uint64_t RATE = 2000, BURST = 40;
  constexpr int KILLS = 20;
  ScratchDisk file(Medium::MEMORY, DISK_BYTES);
  CheckingDriver driver(1, file.contents(0, DISK_BYTES), 1);
  MortalDisk disk(driver);
  disk.hand("disk", 0, duplicate(file.fd()));
  disk.config().getRate().setRequestsPerSecond(RATE);
  disk.config().getRate().setBurstRequests(BURST);
  auto begun = std::chrono::steady_clock::now();
  for (int life = 0; life < KILLS; life++) {
    disk.begin();
    disk.serveFor(std::chrono::milliseconds(30));
    disk.kill();
  }
  disk.begin();
  disk.serveUntilIdle();
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
  EXPECT_LE(driver.totalAnswered(), took.count() * RATE + (KILLS + 1) * BURST);
  EXPECT_GT(driver.totalAnswered(), uint64_t(CheckingDriver::DEPTH));
  disk.end();
  driver.expectHeldBy(file.contents(0, DISK_BYTES));
}

uint64_t capacityOf(MortalDisk& disk) {
  auto described = disk.process().describe();
  uint64_t sectors;
  memcpy(&sectors, described.getInfo().getConfig().begin(), sizeof(sectors));
  return sectors * 512;
}

TEST(BlkKilledResized, TheNextProcessHasTheSizeThatTheDiskHasGrownTo) {
  constexpr uint64_t LARGER = DISK_BYTES + (3 << 20);
  for (auto& kind : KilledImage::kinds()) {
    if (kind.isVolatile) continue;
    SCOPED_TRACE(kind.name);
    KilledImage image(kind, DISK_BYTES);
    CheckingDriver driver(2, image.contents(), 2);
    MortalDisk disk(driver);
    image.handTo(disk);
    disk.begin();
    disk.serveFor(std::chrono::milliseconds(2));
    disk.process().diskSize(LARGER);
    disk.kill();
    disk.begin();
    EXPECT_EQ(capacityOf(disk), LARGER);
    disk.serveUntilIdle();
    disk.end();
    EXPECT_EQ(image.flaws(), "");
    auto all = image.contents();
    ASSERT_EQ(all.size(), LARGER);
    driver.expectHeldBy(all.slice(0, DISK_BYTES));
    EXPECT_TRUE(std::all_of(all.begin() + DISK_BYTES, all.end(), [](auto b) { return b == 0; }));
  }
}

// A growth that is cut: the size is the old or the new one, and the image is sound.
TEST(BlkKilledResized, AmidTheGrowth) {
  constexpr uint64_t LARGER = 2 * DISK_BYTES;  // with clusters of 512 bytes a longer L1 table
  auto& kind = KilledImage::kind("Fresh512");
  for (int round = 0; round < 20; round++) {
    SCOPED_TRACE(round);
    KilledImage image(kind, DISK_BYTES);
    CheckingDriver driver(round, image.contents(), 2);
    MortalDisk disk(driver);
    image.handTo(disk);
    disk.begin();
    disk.serveFor(std::chrono::microseconds(500));
    auto request = disk.process().device().hostEventRequest();
    request.initEvent().setDiskSize(LARGER);
    {
      auto growing = request.send().ignoreResult().eagerlyEvaluate([](kj::Exception&&) {});
      disk.serveFor(std::chrono::microseconds(round * 50));
    }
    disk.kill();
    disk.begin();
    uint64_t size = capacityOf(disk);
    EXPECT_TRUE(size == DISK_BYTES || size == LARGER) << size;
    disk.serveUntilIdle();
    disk.process().diskSize(LARGER);
    disk.end();
    EXPECT_EQ(image.flaws(), "");
    auto all = image.contents();
    ASSERT_EQ(all.size(), LARGER);
    driver.expectHeldBy(all.slice(0, DISK_BYTES));
  }
}

}  // namespace
}  // namespace troupe::blk
