// The kernel's own irqchip under what a hostile guest can do to it. Needs /dev/kvm.
#include "broker/kvm_interrupts.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/exception.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "broker/fd_table.h"
#include "broker/kvm_vm.h"
#include "broker/memory_map.h"
#include "broker/msix.h"

namespace troupe::broker {
namespace {

struct Bench {
  Bench() { vm.addInterruptControllers(); }

  UnplacedFds fds;
  kj::AutoCloseFd kvm{open("/dev/kvm", O_RDWR | O_CLOEXEC)};
  KvmVm vm{kvm, fds};
};

kj::AutoCloseFd makeEventFd() {
  return kj::AutoCloseFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

uint64_t residentKib() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "VmRSS:") continue;
    uint64_t kib;
    status >> kib;
    return kib;
  }
  return 0;
}

TEST(KvmInterrupts, MSI01GsisEndWithTheKernelsAndTheNextIsRefusedByName) {
  Bench bench;
  KvmInterrupts interrupts(bench.vm.fd());
  for (uint32_t gsi = FIRST_MSI_GSI; gsi < 4096; ++gsi)
    ASSERT_EQ(interrupts.allocateMsiGsi(), gsi);
  auto refusal = kj::runCatchingExceptions([&]() { interrupts.allocateMsiGsi(); });
  auto text = KJ_ASSERT_NONNULL(refusal).getDescription();
  EXPECT_TRUE(text.startsWith("TRP-kvm-005: ")) << text.cStr();
  // The largest table is one the kernel takes.
  EXPECT_TRUE(interrupts.setMsi(4095, 0xfee00000, 0x41));
}

TEST(KvmInterrupts, MSI01AGsiNobodyTookIsNoMessage) {
  Bench bench;
  KvmInterrupts interrupts(bench.vm.fd());
  interrupts.allocateMsiGsi();
  EXPECT_FALSE(interrupts.setMsi(0, 0xfee00000, 0x41));
  EXPECT_FALSE(interrupts.setMsi(FIRST_MSI_GSI + 1, 0xfee00000, 0x41));
  EXPECT_FALSE(interrupts.setMsi(0xffffffff, 0xfee00000, 0x41));
  interrupts.sendMsi(0xffffffff);
}

// Four vCPUs rewrite their vectors as fast as they can, each with its irqfd coming and going, while
// the main loop sends messages: all get through, and nothing is left behind.
TEST(KvmInterrupts, MSI01RemapStormsOnSeveralVcpusLeaveNothingBehind) {
  Bench bench;
  KvmInterrupts interrupts(bench.vm.fd());
  constexpr uint32_t VCPUS = 4;
  constexpr uint32_t ROUNDS = 1200;
  for (uint32_t i = 0; i < 31 * VCPUS; ++i)
    interrupts.allocateMsiGsi();
  auto storm = [&](uint32_t rounds) {
    std::vector<std::thread> vcpus;
    std::atomic<uint32_t> running{VCPUS};
    for (uint32_t v = 0; v < VCPUS; ++v) {
      vcpus.emplace_back([&, v]() {
        uint32_t gsi = FIRST_MSI_GSI + 31 * v;
        auto call = makeEventFd();
        for (uint32_t i = 0; i < rounds; ++i) {
          EXPECT_TRUE(interrupts.setMsi(gsi, 0xfee00000, i & 0xff));
          EXPECT_TRUE(interrupts.attachIrqFd(gsi, call));
          interrupts.detachIrqFd(gsi, call);
        }
        --running;
      });
    }
    while (running > 0)
      interrupts.sendMsi(FIRST_MSI_GSI);
    for (auto& vcpu : vcpus)
      vcpu.join();
  };
  storm(ROUNDS / 8);
  uint64_t before = residentKib();
  storm(ROUNDS);
  EXPECT_LT(residentKib(), before + 8192);
}

// What an attached eventfd counted while it was detached is raised, and stays for us to drain; what
// comes while it is attached the kernel consumes. Masking and unmasking rests on both.
TEST(KvmInterrupts, AttachingLeavesTheCountAndAttachedTheKernelConsumesIt) {
  Bench bench;
  KvmInterrupts interrupts(bench.vm.fd());
  uint32_t gsi = interrupts.allocateMsiGsi();
  ASSERT_TRUE(interrupts.setMsi(gsi, 0xfee00000, 0x41));
  auto call = makeEventFd();
  signalEventFd(call);
  ASSERT_TRUE(interrupts.attachIrqFd(gsi, call));
  EXPECT_TRUE(drainEventFd(call));
  signalEventFd(call);
  EXPECT_FALSE(drainEventFd(call));
  interrupts.detachIrqFd(gsi, call);
  signalEventFd(call);
  EXPECT_TRUE(drainEventFd(call));
}

}  // namespace
}  // namespace troupe::broker
