// Attaching a device: what of the broker's fds and regions is refused.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include "devices/virtio/device_actor.h"
#include "devices/virtio/testing/scripted_engine.h"

namespace troupe::virtio {
namespace {

using testing::FakeRam;
using testing::makeHandle;
using testing::makeMemfd;
using Stage = testing::ScriptedStage;

constexpr int SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// A good attach(), for a test to take one thing away from.
struct Attempt {
  Stage stage;
  capnp::Request<Device::AttachParams, Device::AttachResults> request = stage.bench.attachRequest();
  void expectRefused() {
    EXPECT_ANY_THROW(stage.bench.await(request.send().ignoreResult()));
    EXPECT_EQ(stage.bench.jail.stages.size(), 0);
    EXPECT_ANY_THROW(stage.bench.activate(0, {&stage.driver}));
  }
};

TEST(DeviceActorAttach, RefusesTooFewQueues) {
  Attempt attempt;
  attempt.request.initQueues(1);
  attempt.expectRefused();
}

TEST(DeviceActorAttach, RefusesTooManyQueues) {
  Attempt attempt;
  attempt.request.initQueues(3);
  attempt.expectRefused();
}

TEST(DeviceActorAttach, RefusesNullHandles) {
  Attempt attempt;
  attempt.request.initQueues(2);
  attempt.expectRefused();
}

TEST(DeviceActorAttach, RefusesHandlesWithoutFds) {
  Attempt attempt;
  attempt.request.getQueues()[1].setCall(makeHandle(-1));
  attempt.expectRefused();
}

TEST(DeviceActorAttach, RefusesFdsThatBlock) {
  Attempt attempt;
  kj::AutoCloseFd blocking(eventfd(0, EFD_CLOEXEC));
  attempt.request.getQueues()[0].setKick(makeHandle(blocking));
  attempt.expectRefused();
}

TEST(DeviceActorAttach, RefusesMissingMemory) {
  Attempt attempt;
  attempt.request.getMemory().setFile(makeHandle(-1));
  attempt.expectRefused();
}

TEST(DeviceActorAttach, NeedsNoMemoryWhereNoneIsGranted) {
  Stage stage;
  auto request = stage.bench.attachRequest();
  request.initMemory();
  stage.bench.await(request.send().ignoreResult());
  // There is no ring then, wherever the driver puts it.
  stage.bench.activate(F_VERSION_1, {&stage.driver});
  stage.bench.settle();
  EXPECT_EQ(stage.script.starts, 0);
  EXPECT_EQ(stage.bench.host.resetsAsked, 1);
}

TEST(DeviceActorAttach, RefusesRegionsOfNoFile) {
  Attempt attempt;
  attempt.request.getMemory().disownFile();
  attempt.expectRefused();
}

TEST(DeviceActorAttach, RefusesToWriteThroughAReadOnlyFile) {
  Attempt attempt;
  attempt.request.getMemory().setFile(makeHandle(attempt.stage.ram.readOnlyFd()));
  attempt.expectRefused();
}

TEST(DeviceActorAttach, RefusesMemoryThatIsNoMemfd) {
  Attempt attempt;
  kj::AutoCloseFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  attempt.request.getMemory().setFile(makeHandle(null));
  attempt.expectRefused();
}

TEST(DeviceActorAttach, RefusesEachMissingSeal) {
  for (int seals : {0, SEALS & ~F_SEAL_SHRINK, SEALS & ~F_SEAL_GROW, SEALS & ~F_SEAL_SEAL}) {
    Stage fresh;
    auto file = makeMemfd(4 * FakeRam::MIB, seals);
    auto request = fresh.bench.attachRequest();
    request.getMemory().setFile(makeHandle(file));
    EXPECT_ANY_THROW(fresh.bench.await(request.send().ignoreResult())) << seals;
    EXPECT_EQ(fresh.bench.jail.stages.size(), 0);
  }
}

TEST(DeviceActorAttach, RefusesAFileShorterThanItsRegions) {
  Attempt attempt;
  auto file = makeMemfd(FakeRam::MIB, SEALS);
  attempt.request.getMemory().setFile(makeHandle(file));
  attempt.expectRefused();
}

TEST(DeviceActorAttach, RefusesRegionsThatCannotBe) {
  const struct {
    uint64_t guestAddress, fileOffset, size;
  } bad[] = {
      {0, 0, 0},
      {1, 0, 4096},
      {0, 1, 4096},
      {0, 0, 4095},
      {0, 4096, UINT64_MAX & ~4095ull},
      {0, UINT64_MAX & ~4095ull, 4096},
      {UINT64_MAX & ~4095ull, 0, 8192},
      {0, 4 * FakeRam::MIB, 4096},
  };
  for (auto& region : bad) {
    Stage fresh;
    auto request = fresh.bench.attachRequest();
    auto only = request.getMemory().initRegions(1)[0];
    only.setGuestAddress(region.guestAddress);
    only.setFileOffset(region.fileOffset);
    only.setSize(region.size);
    EXPECT_ANY_THROW(fresh.bench.await(request.send().ignoreResult()));
  }
}

TEST(DeviceActorAttach, RefusesRegionsThatOverlapOrAreNotSorted) {
  for (uint64_t second : {uint64_t(0), FakeRam::MIB / 2}) {
    Stage fresh;
    auto request = fresh.bench.attachRequest();
    auto regions = request.getMemory().initRegions(2);
    regions[0].setGuestAddress(second == 0 ? FakeRam::MIB : 0);
    regions[0].setSize(FakeRam::MIB);
    regions[1].setGuestAddress(second);
    regions[1].setSize(FakeRam::MIB);
    EXPECT_ANY_THROW(fresh.bench.await(request.send().ignoreResult()));
  }
}

TEST(DeviceActorAttach, RefusesNoRegions) {
  Attempt attempt;
  attempt.request.getMemory().initRegions(0);
  attempt.expectRefused();
}

}  // namespace
}  // namespace troupe::virtio
