// How a function interrupts: MSI-X messages and the INTx pin.
#include <gtest/gtest.h>

#include "broker/virtio_pci_bench.h"

namespace troupe::broker {
namespace {

constexpr uint16_t WORKING = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

bool isSet(int eventFd) {
  return drainEventFd(eventFd);
}

// MSI-X

TEST(VirtioPciInterrupts, AnUnmaskedVectorIsAnIrqFdAndTheBrokerSeesNoInterrupt) {
  VirtioBench bench;
  bench.startWithMsix();
  bench.signal(0);
  bench.signal(1);
  EXPECT_EQ(bench.raised(1), 2);  // two queues on one vector
  EXPECT_EQ(bench.interrupts.messages[FIRST_MSI_GSI + 1], std::make_pair(0xfee00000ul, 0x31u));
  bench.turn();
  EXPECT_EQ(bench.raised(1), 2);
  EXPECT_FALSE(bench.line());
}

TEST(VirtioPciInterrupts, PCI04AMaskedVectorKeepsItsInterruptPendingUntilUnmasked) {
  VirtioBench bench;
  bench.startWithMsix();
  bench.vector(1, 0xfee00000, 0x31, true);
  bench.signal(0);
  bench.signal(1);
  EXPECT_EQ(bench.raised(1), 0);
  EXPECT_EQ(bench.in(BAR_PENDING, 8), 2);
  EXPECT_EQ(bench.in(BAR_PENDING, 4), 2);  // reading it takes nothing away
  bench.vector(1, 0xfee00000, 0x31, false);
  EXPECT_EQ(bench.raised(1), 1);
  EXPECT_EQ(bench.in(BAR_PENDING, 8), 0);
  // And once is enough: nothing is left over for the next time.
  bench.vector(1, 0xfee00000, 0x31, true);
  EXPECT_EQ(bench.in(BAR_PENDING, 8), 0);
  bench.vector(1, 0xfee00000, 0x31, false);
  EXPECT_EQ(bench.raised(1), 1);
}

TEST(VirtioPciInterrupts, PCI04UnmaskingWithoutLookingAtThePendingBitsAlsoRaisesOnce) {
  VirtioBench bench;
  bench.startWithMsix();
  bench.vector(1, 0xfee00000, 0x31, true);
  bench.signal(0);
  bench.vector(1, 0xfee00000, 0x31, false);
  EXPECT_EQ(bench.raised(1), 1);
  EXPECT_FALSE(isSet(bench.function.queueFds()[0].call));  // drained behind the irqfd
}

TEST(VirtioPciInterrupts, PCI04TheFunctionMaskHoldsAllVectorsBack) {
  VirtioBench bench;
  bench.startWithMsix();
  bench.msixControl(MSIX_CONTROL_ENABLE | MSIX_CONTROL_FUNCTION_MASK);
  bench.signal(0);
  bench.function.needsReset();
  EXPECT_EQ(bench.raised(0) + bench.raised(1), 0);
  EXPECT_EQ(bench.in(BAR_PENDING, 8), 3);
  bench.msixControl(MSIX_CONTROL_ENABLE);
  EXPECT_EQ(bench.raised(0), 1);
  EXPECT_EQ(bench.raised(1), 1);
}

TEST(VirtioPciInterrupts, PCI04AVectorOutOfRangeReadsBackAsNoneAndRaisesNothing) {
  VirtioBench bench;
  bench.startWithMsix();
  for (uint32_t vector : {3u, 4u, 0x7ffu, 0x8000u, 0xfffeu, 0xffffu}) {
    bench.out(QUEUE_SELECT, 0, 2);
    bench.out(QUEUE_MSIX_VECTOR, vector, 2);
    EXPECT_EQ(bench.in(QUEUE_MSIX_VECTOR, 2), NO_VECTOR);
    bench.out(CONFIG_MSIX_VECTOR, vector, 2);
    EXPECT_EQ(bench.in(CONFIG_MSIX_VECTOR, 2), NO_VECTOR);
    bench.signal(0);
    kj::byte byte = 1;
    bench.function.configChanged(0, kj::arrayPtr(&byte, 1));
  }
  EXPECT_EQ(bench.raised(0) + bench.raised(1) + bench.raised(2), 0);
}

TEST(VirtioPciInterrupts, PCI04TheTableHasItsVectorsAndNothingBehindThem) {
  VirtioBench bench;
  bench.command(WORKING);
  for (uint64_t offset = 0; offset < 0x1000; offset += 4)
    bench.out(BAR_TABLE + offset, ~0u, 4);
  for (uint64_t offset = 0; offset < 0x1000; offset += 4) {
    uint64_t expected = offset >= 48        ? 0
                        : offset % 16 == 0  ? 0xfffffffc
                        : offset % 16 == 12 ? 1
                                            : 0xffffffff;
    EXPECT_EQ(bench.in(BAR_TABLE + offset, 4), expected) << offset;
  }
  for (size_t width : {1, 2}) {
    bench.out(BAR_TABLE + 12, 0, width);
    EXPECT_EQ(bench.in(BAR_TABLE + 12, 4), 1);  // 32 and 64 bits only
  }
  bench.out(BAR_PENDING, ~0u, 4);
  EXPECT_EQ(bench.in(BAR_PENDING, 4), 0);
}

TEST(VirtioPciInterrupts, PCI04OneVectorForAllQueuesAndTheConfigurationIsRaisedByEach) {
  VirtioBench bench;
  bench.startWithMsix();
  bench.out(CONFIG_MSIX_VECTOR, 1, 2);
  for (uint16_t queue : {0, 1}) {
    bench.out(QUEUE_SELECT, queue, 2);
    bench.out(QUEUE_MSIX_VECTOR, 1, 2);
  }
  bench.signal(0);
  bench.signal(1);
  bench.function.needsReset();
  EXPECT_EQ(bench.raised(1), 3);
  // Masked, they are one pending bit, and one message brings all of them.
  bench.vector(1, 0xfee00000, 0x31, true);
  bench.signal(0);
  bench.signal(1);
  EXPECT_EQ(bench.in(BAR_PENDING, 8), 2);
  bench.vector(1, 0xfee00000, 0x31, false);
  EXPECT_EQ(bench.raised(1), 4);
}

TEST(VirtioPciInterrupts, MSI01AMessageOutsideTheInterruptWindowIsNeverSent) {
  VirtioBench bench;
  bench.startWithMsix();
  uint64_t calls = bench.interrupts.setMsiCalls;
  for (uint32_t address : {0u, 0x1000u, 0xfec00000u, 0xfed00000u, 0xfef00000u, 0xfffffffcu}) {
    bench.vector(1, address, 0x31, false);
    bench.signal(0);
  }
  bench.out(BAR_TABLE + 16 + 12, 1, 4);
  bench.vector(1, 0xfee00000, 0x31, true);
  bench.out(BAR_TABLE + 16 + 4, 1, 4);  // above 4 GiB
  bench.out(BAR_TABLE + 16 + 12, 0, 4);
  bench.signal(0);
  EXPECT_EQ(bench.raised(1), 0);
  EXPECT_EQ(bench.interrupts.setMsiCalls, calls);
  bench.vector(1, 0xfee00000, 0x31, false);
  EXPECT_EQ(bench.raised(1), 1);
}

TEST(VirtioPciInterrupts, MSI01AMessageTheKernelRefusesIsNeverSent) {
  VirtioBench bench;
  bench.startWithMsix();
  bench.interrupts.refuseMessages = true;
  bench.vector(1, 0xfee01000, 0x40, false);
  bench.signal(0);
  EXPECT_EQ(bench.raised(1), 0);
  EXPECT_EQ(bench.in(BAR_PENDING, 4), 2);
}

TEST(VirtioPciInterrupts, MSI01ARemapStormUsesNoMoreGsisAndOnlyUpdatesWhatChanges) {
  VirtioBench bench;
  bench.startWithMsix();
  uint32_t gsis = bench.interrupts.nextGsi;
  uint64_t calls = bench.interrupts.setMsiCalls;
  for (uint32_t i = 0; i < 100000; ++i)
    bench.out(BAR_TABLE + 16 + 12, i % 2, 4);
  EXPECT_EQ(bench.interrupts.setMsiCalls, calls);
  for (uint32_t i = 0; i < 1000; ++i)
    bench.out(BAR_TABLE + 16 + 8, i, 4);
  EXPECT_EQ(bench.interrupts.nextGsi, gsis);
  EXPECT_LE(bench.interrupts.irqFds.size(), 2);
}

TEST(VirtioPciInterrupts, AResetForgetsPendingInterruptsAndVectors) {
  VirtioBench bench;
  bench.startWithMsix();
  bench.vector(1, 0xfee00000, 0x31, true);
  bench.signal(0);
  bench.status(0);
  bench.turn();
  bench.function.resetDone();
  EXPECT_EQ(bench.in(BAR_PENDING, 4), 0);
  EXPECT_TRUE(bench.interrupts.irqFds.empty());
  bench.vector(1, 0xfee00000, 0x31, false);
  EXPECT_EQ(bench.raised(1), 0);
}

// INTx

TEST(VirtioPciInterrupts, WithoutMsixTheMainLoopRaisesTheLineAndReadingIsrLowersIt) {
  VirtioBench bench;
  bench.start();
  bench.signal(1);
  bench.turn();
  EXPECT_TRUE(bench.line());
  EXPECT_EQ(bench.config(1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, PCI_STATUS_INTERRUPT);
  EXPECT_EQ(bench.in(BAR_ISR, 1), ISR_QUEUE);
  EXPECT_FALSE(bench.line());
  EXPECT_EQ(bench.config(1, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
  EXPECT_EQ(bench.in(BAR_ISR, 1), 0);
  bench.signal(0);
  bench.turn();
  EXPECT_TRUE(bench.line());
}

// A device may write its eventfds as fast as it likes, the ones it should only read too.
TEST(VirtioPciInterrupts, BRK06AStormOfForgedInterruptsRaisesTheLineOnceAndPilesUpNothing) {
  VirtioBench bench;
  bench.start();
  uint64_t changes = bench.interrupts.lineChanges;
  for (int i = 0; i < 100000; ++i) {
    bench.signal(i % 2);
    signalEventFd(bench.function.queueFds()[i % 2].kick);
    if (i % 1000 == 0) bench.turn();
  }
  bench.turn();
  EXPECT_TRUE(bench.line());
  EXPECT_EQ(bench.interrupts.lineChanges, changes + 1);
  EXPECT_LE(bench.mailbox.mostWaiting, 1);
  EXPECT_EQ(bench.in(BAR_ISR, 1), ISR_QUEUE);
  EXPECT_FALSE(bench.line());
}

TEST(VirtioPciInterrupts, BRK06AStormBehindAMaskedVectorIsOneInterrupt) {
  VirtioBench bench;
  bench.startWithMsix();
  bench.vector(1, 0xfee00000, 0x31, true);
  for (int i = 0; i < 100000; ++i)
    bench.signal(0);
  bench.turn();
  EXPECT_EQ(bench.raised(1), 0);
  bench.vector(1, 0xfee00000, 0x31, false);
  EXPECT_EQ(bench.raised(1), 1);
}

TEST(VirtioPciInterrupts, TheIntxDisableBitHoldsTheLineDownAndKeepsTheIsr) {
  VirtioBench bench;
  bench.start();
  bench.command(WORKING | PCI_COMMAND_INTX_DISABLE);
  bench.signal(0);
  bench.turn();
  EXPECT_FALSE(bench.line());
  bench.command(WORKING);
  EXPECT_TRUE(bench.line());
  bench.status(0);
  bench.turn();
  bench.function.resetDone();
  EXPECT_FALSE(bench.line());
}

TEST(VirtioPciInterrupts, SwitchingToMsixAndBackBeforeTheMainLoopTurnsLosesNoInterrupt) {
  VirtioBench bench;
  bench.start();
  bench.signal(0);
  bench.msixControl(MSIX_CONTROL_ENABLE);
  bench.io.waitScope.poll();  // the reader sees the signal while MSI-X is on
  EXPECT_FALSE(bench.line());
  bench.msixControl(0);
  bench.turn();
  EXPECT_TRUE(bench.line());
}

TEST(VirtioPciInterrupts, AConfigurationChangeSetsItsIsrBitAndReachesTheDriver) {
  VirtioBench bench;
  kj::byte byte = 7;
  EXPECT_TRUE(bench.function.configChanged(3, kj::arrayPtr(&byte, 1)));
  EXPECT_FALSE(bench.line());  // no driver yet
  bench.start();
  EXPECT_TRUE(bench.function.configChanged(3, kj::arrayPtr(&byte, 1)));
  EXPECT_TRUE(bench.line());
  EXPECT_EQ(bench.in(BAR_ISR, 4), ISR_CONFIG);
  EXPECT_EQ(bench.in(CONFIG_GENERATION, 1), 2);
  EXPECT_FALSE(bench.function.configChanged(16, kj::arrayPtr(&byte, 1)));
}

TEST(VirtioPciInterrupts, NeedsResetIsShownAndInterrupts) {
  VirtioBench bench;
  bench.startWithMsix();
  bench.function.needsReset();
  EXPECT_EQ(bench.status() & STATUS_DEVICE_NEEDS_RESET, STATUS_DEVICE_NEEDS_RESET);
  EXPECT_EQ(bench.raised(0), 1);
}

}  // namespace
}  // namespace troupe::broker
