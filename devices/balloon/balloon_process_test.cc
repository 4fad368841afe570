// troupe-balloon in its jail, with this test as broker and guest.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <signal.h>
#include <sys/wait.h>

#include <fstream>
#include <string>

#include "devices/balloon/testing/balloon_bench.h"
#include "tests/rpc/garbage.h"

namespace troupe::balloon {
namespace {

using troupe::testing::Garbage;
using troupe::testing::garbage;
using troupe::testing::Target;
using virtio::testing::JailedProcess;
using virtio::testing::writable;

struct Bench {
  void attach() {
    device.attachReadOnly();
    device.describe();  // behind it the fds that came with attach() are closed
  }
  kj::String differences(sandbox::Stage stage) { return kj::strArray(device.attest(stage), "\n"); }

  // Lines of /proc/PID/maps that are guest RAM and can be written.
  int writableMappings() {
    std::ifstream maps("/proc/" + std::to_string(device.child().pid()) + "/maps");
    int count = 0;
    for (std::string line; std::getline(maps, line);) {
      bool isRam = line.find("/memfd:") != std::string::npos;
      count += isRam && line[line.find(' ') + 2] == 'w';
    }
    return count;
  }

  FakeRam ram{64 * MIB};
  JailedBalloon device{ram};
};

TEST(BalloonProcess, JailIsAsTheProfileSaysInEachStage) {
  Bench bench;
  bench.attach();
  EXPECT_EQ(bench.differences(sandbox::Stage::READY), "");
  BalloonDriver driver(bench.ram);
  driver.activate(bench.device);
  EXPECT_EQ(bench.differences(sandbox::Stage::RUN), "");
}

TEST(BalloonProcess, NothingOfGuestMemoryIsWritableToIt) {
  Bench bench;
  bench.attach();
  EXPECT_EQ(bench.writableMappings(), 0);
  BalloonDriver driver(bench.ram);
  driver.activate(bench.device);
  driver[INFLATE].add({driver.pages({1024})});
  bench.device.waitForUsed(INFLATE, driver[INFLATE]);
  EXPECT_EQ(bench.writableMappings(), 0);
}

TEST(BalloonProcess, ServesAllQueuesResetsAndDriversAgain) {
  Bench bench;
  bench.attach();
  for (int round = 0; round < 3; round++) {
    BalloonDriver driver(bench.ram);
    driver.activate(bench.device);
    driver[INFLATE].wantInterrupts(true);
    driver[INFLATE].add({driver.pages({1024, 1025})});
    bench.device.waitForUsed(INFLATE, driver[INFLATE]);
    bench.device.waitForInterrupt(INFLATE);
    driver[DEFLATE].add({driver.pages({1024, 1025})});
    bench.device.waitForUsed(DEFLATE, driver[DEFLATE]);
    driver[REPORT].addIndirect({writable(8 * MIB, 4 * MIB), writable(16 * MIB, 4 * MIB)});
    bench.device.waitForUsed(REPORT, driver[REPORT]);
    driver[STATISTICS].add({driver.pages({0, 0, 0, 0, 0})});  // two entries of zeroes
    bench.device.kick(STATISTICS);
    bench.device.waitUntil(
        [&] { return bench.device.report().getReport().getBalloon().getHasStatistics(); });
    bench.device.balloonTarget(round + 1);
    bench.device.reset();
  }
  EXPECT_EQ(bench.device.host.givenBack.size(), 6u);
  EXPECT_EQ(bench.device.host.configChanges.size(), 3u);
  bench.device.disconnect();
  int status = bench.device.waitForExit();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

// As large as calls to the broker become, and answers to it.
TEST(BalloonProcess, TheLargestTurnsFitTheJail) {
  Bench bench;
  bench.attach();
  BalloonDriver driver(bench.ram);
  driver.activate(bench.device);
  std::vector<uint32_t> apart;
  for (uint32_t page = 2048; page < 2048 + 2 * 5000; page += 2)
    apart.push_back(page);
  for (int i = 0; i < 20; i++) {
    driver[INFLATE].add({driver.pages(apart)});
    bench.device.waitForUsed(INFLATE, driver[INFLATE]);
  }
  EXPECT_EQ(bench.differences(sandbox::Stage::RUN), "");
}

TEST(BalloonProcess, AStopTakesItInOrder) {
  Bench bench;
  bench.attach();
  BalloonDriver driver(bench.ram);
  driver.activate(bench.device);
  driver[INFLATE].add({virtio::testing::readable(4 * MIB, 40 * MIB)});
  bench.device.kick(INFLATE);
  bench.device.disconnect();
  int status = bench.device.waitForExit();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

// What a broker that somebody took over can write to it.

Target target(uint32_t firstQuestion) {
  return Target{capnp::typeId<Device>(), 7, firstQuestion};
}

void expectOrderlyEnd(int status, const Garbage& piece) {
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << piece.name << ": " << status;
}

TEST(BalloonGarbage, BRK01_AServingProcessEndsInOrder) {
  for (const Garbage& piece : garbage(target(1000))) {
    Bench bench;
    bench.attach();
    BalloonDriver driver(bench.ram);
    driver.activate(bench.device);
    bench.device.sendRaw(kj::arrayPtr(piece.bytes.data(), piece.bytes.size()));
    bench.device.disconnect();
    expectOrderlyEnd(bench.device.waitForExit(), piece);
  }
}

}  // namespace
}  // namespace troupe::balloon
