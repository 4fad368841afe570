#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "broker/virtio_pci_bench.h"

namespace troupe::broker {
namespace {

// One vCPU's worth of nonsense, the same each time for the same seed.
class Storm {
 public:
  Storm(VirtioBench& bench, uint32_t seed) : bench(bench), state(seed) {}

  void blow(uint32_t accesses) {
    for (uint32_t i = 0; i < accesses; ++i)
      access();
  }

 private:
  uint32_t random(uint32_t below) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % below;
  }

  void access() {
    constexpr uint32_t BARS[] = {0xc0000000, 0xc0010000, 0x00100000, 0xe0000000};
    switch (random(10)) {
      case 0:
        return bench.setConfig(1, PCI_BAR0, BARS[random(4)], 4);
      case 1:
        return bench.setConfig(1, PCI_COMMAND, random(8), 2);
      case 2:
        return bench.setConfig(1, 0x40 + random(0x70), state, 1 << random(3));
      case 3:
        return bench.out(DEVICE_STATUS, random(4) == 0 ? 0 : random(16), 1);
      case 4:
        return bench.out(random(COMMON_SIZE), random(4), 1 << random(4));
      case 5:
        return bench.vector(random(3), 0xfee00000, random(256), random(2));
      case 6:
        return bench.out(BAR_NOTIFY + 4 * random(3), 0, 2);
      case 7:
        return bench.out(BAR_DEVICE + random(20), state, 1 << random(4));
      case 8:
        bench.in(random(BAR_SIZE), 1 << random(4));
        return;
      case 9:
        bench.negotiate();
        return bench.status(DRIVER_READY | STATUS_DRIVER_OK);
    }
  }

  VirtioBench& bench;
  uint32_t state;
};

TEST(VirtioPciThreads, PCI07VcpusDeviceAndMainLoopAtOnceLeaveAWorkingFunction) {
  VirtioBench bench;
  std::atomic<uint32_t> running{4};
  std::vector<std::thread> vcpus;
  for (uint32_t i = 0; i < 4; ++i) {
    vcpus.emplace_back([&, i]() {
      Storm(bench, i).blow(20000);
      --running;
    });
  }
  for (uint32_t turn = 0; running > 0; ++turn) {
    kj::byte byte = turn;
    bench.function.configChanged(turn % 16, kj::arrayPtr(&byte, 1));
    if (turn % 8 == 0) bench.function.needsReset();
    bench.signal(turn % 2);
    bench.turn();
    bench.function.resetDone();
  }
  for (auto& vcpu : vcpus)
    vcpu.join();
  EXPECT_EQ(bench.mailbox.mostWaiting, 1);

  // A driver that behaves finds all it needs.
  bench.turn();
  bench.setConfig(1, PCI_BAR0, 0xc0000000, 4);
  bench.command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
  bench.msixControl(0);
  bench.status(0);
  bench.turn();
  bench.function.resetDone();
  ASSERT_EQ(bench.status(), 0);
  uint64_t before = bench.device.activations;
  bench.startWithMsix();
  EXPECT_EQ(bench.device.activations, before + 1);
  uint64_t raised = bench.raised(1);
  bench.signal(0);
  EXPECT_EQ(bench.raised(1), raised + 1);
}

TEST(VirtioPciThreads, NTF01ManyVcpusOnOneRegisterAllKickTheQueue) {
  VirtioBench bench;
  bench.start();
  std::vector<std::thread> vcpus;
  for (uint32_t i = 0; i < 64; ++i) {
    vcpus.emplace_back([&]() {
      for (uint32_t n = 0; n < 100; ++n)
        bench.write(bench.mmio, 0xc0003000, 0, 4);
    });
  }
  for (auto& vcpu : vcpus)
    vcpu.join();
  EXPECT_EQ(bench.function.notifyExits(), 6400);
  EXPECT_TRUE(drainEventFd(bench.function.queueFds()[0].kick));
}

}  // namespace
}  // namespace troupe::broker
