#include "broker/virtio_pci_function.h"

#include <gtest/gtest.h>
#include <kj/string.h>

#include "broker/virtio_pci_bench.h"

namespace troupe::broker {
namespace {

constexpr uint16_t WORKING = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
constexpr uint64_t NOTHING_THERE = 0xffffffff;

bool isSet(int eventFd) {
  return drainEventFd(eventFd);
}

// LIST-01

std::string lspci(PciMachine& machine) {
  kj::String list = kj::str("");
  for (uint32_t bus = 0; bus < 256; ++bus) {
    for (uint32_t function = 0; function < 256; ++function) {
      uint64_t address = ECAM_START + (bus << 20 | function << 12);
      uint64_t ids = machine.read(machine.mmio, address, 4);
      if (ids == NOTHING_THERE) continue;
      uint64_t classCode = machine.read(machine.mmio, address + 8, 4);
      list = kj::str(list, kj::hex(bus), ":", kj::hex(function >> 3), ".", function & 7, " ",
                     kj::hex(classCode >> 8), ": ", kj::hex(ids & 0xffff), ":", kj::hex(ids >> 16),
                     " (rev ", classCode & 0xff, ") bar ",
                     kj::hex(machine.read(machine.mmio, address + PCI_BAR0, 4)), " pin ",
                     machine.read(machine.mmio, address + PCI_INTERRUPT_PIN, 1), " irq ",
                     machine.read(machine.mmio, address + PCI_INTERRUPT_LINE, 1), "\n");
    }
  }
  return list.cStr();
}

TEST(VirtioPciFunction, LIST01AMachineWithThreeDevicesListsThemAndNothingElse) {
  PciMachine machine;
  FakeDevice device;
  VirtioPciFunction blk(describe(2, {256}), device, machine.socket());
  VirtioPciFunction console(describe(3, {64, 64}), device, machine.socket());
  VirtioPciFunction rng(describe(4, {64}, 0), device, machine.socket());
  EXPECT_EQ(lspci(machine),
            "0:0.0 60000: 1b36:8 (rev 0) bar 0 pin 0 irq 0\n"
            "0:1.0 18000: 1af4:1042 (rev 1) bar c0000000 pin 1 irq 17\n"
            "0:2.0 78000: 1af4:1043 (rev 1) bar c0008000 pin 1 irq 18\n"
            "0:3.0 ff00: 1af4:1044 (rev 1) bar c0010000 pin 1 irq 19\n");
}

TEST(VirtioPciFunction, LIST01CapabilitiesPointIntoTheBarAndAreReadOnly) {
  VirtioBench bench;
  struct Structure {
    uint8_t type;
    uint32_t offset;
    uint32_t length;
  };
  const Structure structures[] = {{CAP_COMMON, BAR_COMMON, 0x38},
                                  {CAP_ISR, BAR_ISR, 1},
                                  {CAP_DEVICE, BAR_DEVICE, 16},
                                  {CAP_NOTIFY, BAR_NOTIFY, 8}};
  for (auto& structure : structures) {
    uint32_t at = bench.capability(PCI_CAPABILITY_VENDOR, structure.type);
    ASSERT_NE(at, 0);
    bench.setConfig(1, at + 4, 0xffffffff, 4);
    bench.setConfig(1, at + 8, 0xffffffff, 4);
    EXPECT_EQ(bench.config(1, at + 2, 1), structure.type == CAP_NOTIFY ? 20 : 16);
    EXPECT_EQ(bench.config(1, at + 4, 1), 0);
    EXPECT_EQ(bench.config(1, at + 8, 4), structure.offset);
    EXPECT_EQ(bench.config(1, at + 12, 4), structure.length);
  }
  uint32_t notify = bench.capability(PCI_CAPABILITY_VENDOR, CAP_NOTIFY);
  EXPECT_EQ(bench.config(1, notify + 16, 4), 4);
  uint32_t msix = bench.capability(PCI_CAPABILITY_MSIX);
  EXPECT_EQ(bench.config(1, msix + 2, 2), 2);  // three vectors
  EXPECT_EQ(bench.config(1, msix + 4, 4), BAR_TABLE);
  EXPECT_EQ(bench.config(1, msix + 8, 4), BAR_PENDING);
}

TEST(VirtioPciFunction, ADeviceWithoutConfigurationHasNoCapabilityForIt) {
  VirtioBench bench(describe(4, {64}, 0));
  EXPECT_EQ(bench.capability(PCI_CAPABILITY_VENDOR, CAP_DEVICE), 0);
}

// A driver's way

TEST(VirtioPciFunction, DriverOkReachesTheDeviceThroughTheMainLoopOnly) {
  VirtioBench bench;
  bench.command(WORKING);
  bench.negotiate();
  bench.out(QUEUE_SELECT, 1, 2);
  bench.out(QUEUE_DESC, 0x1234000, 8);
  bench.out(QUEUE_ENABLE, 1, 2);
  bench.status(DRIVER_READY | STATUS_DRIVER_OK);
  EXPECT_EQ(bench.device.activations, 0);
  bench.turn();
  EXPECT_EQ(bench.device.activations, 1);
  EXPECT_EQ(bench.device.features, FEATURE_VERSION_1);
  ASSERT_EQ(bench.device.queues.size(), 1);
  EXPECT_EQ(bench.device.queues[0].index, 1);
  EXPECT_EQ(bench.device.queues[0].descriptorTable, 0x1234000);
}

TEST(VirtioPciFunction, AConfigurationWriteIsReadBackAtOnceAndToldTheDeviceLater) {
  VirtioBench bench;
  bench.command(WORKING);
  bench.out(BAR_DEVICE + 4, 0x11223344, 4);
  bench.out(BAR_DEVICE + 0, 0x55667788, 4);  // read-only
  bench.out(BAR_DEVICE + 6, 0x99, 1);
  EXPECT_EQ(bench.in(BAR_DEVICE + 4, 4), 0x11993344);
  EXPECT_EQ(bench.in(BAR_DEVICE + 0, 4), 0xa3a2a1a0);
  bench.turn();
  ASSERT_EQ(bench.device.writes.size(), 1);
  EXPECT_EQ(bench.device.writes[0].offset, 4);
  EXPECT_EQ(bench.device.writes[0].data, kj::arr<kj::byte>(0x44, 0x33, 0x99, 0x11));
}

TEST(VirtioPciFunction, RST01AResetIsNotDoneBeforeTheDeviceSaysSo) {
  VirtioBench bench;
  bench.start();
  bench.status(0);
  bench.turn();
  EXPECT_EQ(bench.device.resets, 1);
  EXPECT_NE(bench.status(), 0);
  bench.function.resetDone();
  EXPECT_EQ(bench.status(), 0);
}

TEST(VirtioPciFunction, RST01ADeviceMayAnswerAResetWithinTheCall) {
  VirtioBench bench;
  bench.device.answersResetAtOnce = bench.function;  // as one that is gone does
  for (uint32_t i = 1; i <= 3; ++i) {
    bench.start();
    bench.status(0);
    EXPECT_NE(bench.status(), 0);
    bench.turn();
    EXPECT_EQ(bench.status(), 0);
    EXPECT_EQ(bench.device.resets, i);
  }
}

TEST(VirtioPciFunction, RST01AMillionTogglesOfTheStatusKeepOneErrandWaiting) {
  VirtioBench bench;
  bench.command(WORKING);
  for (uint32_t i = 0; i < 1000000; ++i) {
    bench.status(i % 2 == 0 ? 0 : 3);
    if (i % 16 == 0) {
      bench.negotiate();
      bench.status(DRIVER_READY | STATUS_DRIVER_OK);
      bench.out(BAR_DEVICE + 4, i, 4);
    }
  }
  EXPECT_EQ(bench.mailbox.mostWaiting, 1);
  bench.turn();
  // The device never ran, so it need not hear of it, and the driver is let go.
  EXPECT_EQ(bench.device.activations + bench.device.resets, 0);
  EXPECT_EQ(bench.status(), 0);
}

TEST(VirtioPciFunction, RST04KicksAtAnyTimeAreHarmless) {
  VirtioBench bench;
  auto kick = [&]() {
    for (uint32_t queue = 0; queue < 4; ++queue)
      bench.out(BAR_NOTIFY + 4 * queue, queue, 2);
  };
  bench.command(WORKING);
  kick();  // before DRIVER_OK
  bench.start();
  kick();
  bench.status(0);
  kick();  // during the reset
  bench.turn();
  bench.function.resetDone();
  kick();  // after it
  EXPECT_EQ(bench.device.activations, 1);
  EXPECT_EQ(bench.device.resets, 1);
  EXPECT_EQ(bench.function.notifyExits(), 8);  // two queues, four times
}

// The PCI_CFG window

struct Window {
  VirtioBench bench;
  uint32_t at = bench.capability(PCI_CAPABILITY_VENDOR, CAP_PCI_CFG);

  void aim(uint8_t bar, uint32_t offset, uint32_t length) {
    bench.setConfig(1, at + 4, bar, 1);
    bench.setConfig(1, at + 8, offset, 4);
    bench.setConfig(1, at + 12, length, 4);
  }
  uint64_t read(size_t width) { return bench.config(1, at + 16, width); }
  void write(uint64_t value, size_t width) { bench.setConfig(1, at + 16, value, width); }
};

TEST(VirtioPciFunction, PCI06TheWindowReachesEveryStructureWithoutTheBar) {
  Window window;
  window.aim(0, BAR_COMMON + NUM_QUEUES, 2);
  EXPECT_EQ(window.read(2), 2);
  window.aim(0, BAR_COMMON + DEVICE_STATUS, 1);
  window.write(STATUS_ACKNOWLEDGE, 1);
  EXPECT_EQ(window.read(1), STATUS_ACKNOWLEDGE);
  window.aim(0, BAR_DEVICE, 4);
  EXPECT_EQ(window.read(4), 0xa3a2a1a0);
  window.bench.command(WORKING);
  window.aim(0, BAR_NOTIFY + 4, 2);
  window.write(1, 2);
  EXPECT_TRUE(isSet(window.bench.function.queueFds()[1].kick));
}

TEST(VirtioPciFunction, PCI06AForbiddenWindowReadsZeroAndWritesNothing) {
  struct Aim {
    uint8_t bar;
    uint32_t offset;
    uint32_t length;
    size_t width;
  };
  const Aim aims[] = {{1, DEVICE_STATUS, 1, 1},     {6, DEVICE_STATUS, 1, 1},
                      {0xff, DEVICE_STATUS, 1, 1},  {0, DEVICE_STATUS, 0, 1},
                      {0, DEVICE_STATUS, 2, 1},     {0, DEVICE_STATUS, 4, 1},
                      {0, DEVICE_STATUS, 1, 4},     {0, DEVICE_STATUS, 1, 2},
                      {0, DEVICE_STATUS, 3, 1},     {0, DEVICE_STATUS, ~0u, 1},
                      {0, DEVICE_STATUS + 1, 2, 2}, {0, BAR_SIZE, 1, 1},
                      {0, BAR_SIZE - 2, 4, 4},      {0, ~0u, 1, 1},
                      {0, 0xfffffffc, 4, 4},        {0, DEVICE_STATUS, 8, 8}};
  for (auto& aim : aims) {
    Window window;
    window.aim(aim.bar, aim.offset, aim.length);
    window.write(0xffffffffffffffff, aim.width);
    EXPECT_EQ(window.read(aim.width) & 0xffffffff, 0) << int(aim.bar) << " " << aim.offset;
    window.bench.command(WORKING);
    EXPECT_EQ(window.bench.status(), 0);
  }
}

// BAR and command register

TEST(VirtioPciFunction, PCI07SizingAnswersTheSizeAndLeavesTheBarWhereItIs) {
  VirtioBench bench;
  bench.setConfig(1, PCI_BAR0, 0xffffffff, 4);
  EXPECT_EQ(bench.config(1, PCI_BAR0, 4), 0xffff8000);
  for (uint32_t bar = 1; bar < 6; ++bar) {
    bench.setConfig(1, PCI_BAR0 + 4 * bar, 0xffffffff, 4);
    EXPECT_EQ(bench.config(1, PCI_BAR0 + 4 * bar, 4), 0);
  }
  bench.setConfig(1, 0x30, 0xffffffff, 4);  // no ROM
  EXPECT_EQ(bench.config(1, 0x30, 4), 0);
  bench.setConfig(1, PCI_BAR0, 0xc0000000, 4);
  bench.command(WORKING);
  EXPECT_EQ(bench.in(NUM_QUEUES, 2), 2);
}

TEST(VirtioPciFunction, PCI07RegistersAndNotificationsMoveWithTheBarAndStopWithTheDecoder) {
  VirtioBench bench;
  EXPECT_EQ(bench.read(bench.mmio, 0xc0000000 + NUM_QUEUES, 2), 0xffff);
  bench.command(WORKING);
  int kick = bench.function.queueFds()[1].kick;
  EXPECT_EQ(bench.interrupts.ioEventFds.size(), 2);
  EXPECT_EQ(bench.interrupts.ioEventFds[0xc0003004], kick);

  bench.setConfig(1, PCI_BAR0, 0xd0000000, 4);
  EXPECT_EQ(bench.read(bench.mmio, 0xc0000000 + NUM_QUEUES, 2), 0xffff);
  EXPECT_EQ(bench.read(bench.mmio, 0xd0000000 + NUM_QUEUES, 2), 2);
  EXPECT_EQ(bench.interrupts.ioEventFds.size(), 2);
  EXPECT_EQ(bench.interrupts.ioEventFds[0xd0003004], kick);

  bench.command(0);
  EXPECT_EQ(bench.read(bench.mmio, 0xd0000000 + NUM_QUEUES, 2), 0xffff);
  EXPECT_TRUE(bench.interrupts.ioEventFds.empty());
}

TEST(VirtioPciFunction, PCI07ABarOutsideTheWindowAnswersNothingAndShadowsNothing) {
  VirtioBench bench;
  const uint64_t places[] = {0,
                             0x100000,
                             LOW_RAM_END - BAR_SIZE,
                             MMIO32_END,
                             ECAM_START + 0x8000,
                             IOAPIC_ADDRESS,
                             LAPIC_ADDRESS,
                             KVM_TSS_ADDRESS & ~0x7fffull,
                             0xffff8000};
  bench.command(WORKING);
  for (uint64_t place : places) {
    bench.setConfig(1, PCI_BAR0, place, 4);
    EXPECT_EQ(bench.bar(), place);
    EXPECT_TRUE(bench.interrupts.ioEventFds.empty());
    EXPECT_NE(bench.read(bench.mmio, place + NUM_QUEUES, 2), 2) << place;
    EXPECT_EQ(bench.config(1, 0, 2), 0x1af4);  // ECAM still answers
  }
  bench.setConfig(1, PCI_BAR0, MMIO32_END - BAR_SIZE, 4);
  EXPECT_EQ(bench.in(NUM_QUEUES, 2), 2);
}

TEST(VirtioPciFunction, PCI07ABarOnAnotherYieldsToTheOneThatWasThereFirst) {
  VirtioBench bench;
  FakeDevice otherDevice;
  VirtioPciFunction other(describe(4, {8, 8, 8}), otherDevice, bench.socket());
  bench.setConfig(2, PCI_COMMAND, WORKING, 2);
  bench.command(WORKING);
  bench.setConfig(1, PCI_BAR0, 0xc0008000, 4);
  EXPECT_EQ(bench.in(NUM_QUEUES, 2), 3);  // the other's
  EXPECT_EQ(bench.interrupts.ioEventFds.size(), 3);
  bench.setConfig(2, PCI_BAR0, 0xc0010000, 4);
  bench.command(WORKING);  // tries again
  EXPECT_EQ(bench.in(NUM_QUEUES, 2), 2);
  EXPECT_EQ(bench.interrupts.ioEventFds.size(), 5);
}

TEST(VirtioPciFunction, PCI07ABarMovedOntoItselfStaysAndReattachesNothing) {
  VirtioBench bench;
  bench.command(WORKING);
  auto before = bench.interrupts.ioEventFds;
  bench.setConfig(1, PCI_BAR0, 0xc0000000, 4);
  bench.setConfig(1, PCI_BAR0, 0xc0007fff, 4);  // the low bits are not there
  EXPECT_EQ(bench.interrupts.ioEventFds, before);
  EXPECT_EQ(bench.in(NUM_QUEUES, 2), 2);
}

TEST(VirtioPciFunction, PCI07WithoutBusMasterNothingInterruptsAndNotificationsWait) {
  VirtioBench bench;
  bench.startWithMsix();
  bench.command(PCI_COMMAND_MEMORY);
  EXPECT_TRUE(bench.interrupts.ioEventFds.empty());
  bench.signal(0);
  bench.out(BAR_NOTIFY, 0, 2);
  EXPECT_EQ(bench.raised(1), 0);
  EXPECT_FALSE(isSet(bench.function.queueFds()[0].kick));
  bench.command(WORKING);
  EXPECT_EQ(bench.raised(1), 1);
  EXPECT_TRUE(isSet(bench.function.queueFds()[0].kick));
}

TEST(VirtioPciFunction, PCI07ThereIsNoFunctionResetAndNoPowerStateToEnter) {
  VirtioBench bench;
  EXPECT_EQ(bench.capability(0x01), 0);  // power management
  EXPECT_EQ(bench.capability(0x10), 0);  // PCI Express, with its function-level reset
  EXPECT_EQ(bench.capability(0x13), 0);  // advanced features, with another
}

TEST(VirtioPciFunction, PCI08EveryByteOfTheConfigurationSpaceMayBeWritten) {
  VirtioBench bench;
  for (uint64_t value : {uint64_t(0), ~uint64_t(0), uint64_t(0xa5a5a5a5a5a5a5a5)}) {
    for (size_t width : {1, 2, 4, 8}) {
      for (uint32_t reg = 0; reg < 4096; ++reg)
        bench.setConfig(1, reg, value, width);
    }
  }
  bench.setConfig(1, PCI_BAR0, 0xc0000000, 4);
  bench.command(WORKING);
  bench.msixControl(0);
  EXPECT_EQ(bench.config(1, 0, 4), 0x10421af4);
  EXPECT_EQ(bench.config(1, 0x100, 4), 0);  // no extended capabilities
  bench.start();
  EXPECT_EQ(bench.device.activations, 1);
}

// Notifications

TEST(VirtioPciFunction, NTF01ANotificationThatExitsKicksItsQueueWhateverIsWritten) {
  VirtioBench bench;
  bench.start();
  for (size_t width : {1, 2, 4, 8}) {
    for (uint64_t value : {uint64_t(0), uint64_t(1), uint64_t(0xffff), ~uint64_t(0)}) {
      bench.out(BAR_NOTIFY + 4, value, width);
      EXPECT_FALSE(isSet(bench.function.queueFds()[0].kick));
      EXPECT_TRUE(isSet(bench.function.queueFds()[1].kick));
    }
  }
  EXPECT_EQ(bench.function.notifyExits(), 16);
}

TEST(VirtioPciFunction, NTF01ANotificationOfNoQueueIsNothing) {
  VirtioBench bench;
  bench.start();
  for (uint32_t offset : {1u, 2u, 3u, 5u, 8u, 12u, 0x7cu, 0x80u, 0xffcu, 0xfffu}) {
    bench.out(BAR_NOTIFY + offset, 0, 4);
  }
  EXPECT_EQ(bench.function.notifyExits(), 0);
  EXPECT_FALSE(isSet(bench.function.queueFds()[0].kick));
  EXPECT_FALSE(isSet(bench.function.queueFds()[1].kick));
}

TEST(VirtioPciFunction, NTF01AnIoEventFdTheKernelRefusesLeavesTheWayByExit) {
  VirtioBench bench;
  bench.interrupts.refuseIoEventFds = true;
  bench.start();
  EXPECT_TRUE(bench.interrupts.ioEventFds.empty());
  bench.out(BAR_NOTIFY, 0, 2);
  EXPECT_TRUE(isSet(bench.function.queueFds()[0].kick));
}

TEST(VirtioPciFunction, EverythingIsDetachedWhenAFunctionGoes) {
  PciMachine machine;
  FakeDevice device;
  {
    VirtioPciFunction function(describe(2, {8}), device, machine.socket());
    machine.setConfig(1, PCI_COMMAND, WORKING, 2);
    EXPECT_EQ(machine.interrupts.ioEventFds.size(), 1);
  }
  EXPECT_TRUE(machine.interrupts.ioEventFds.empty());
  EXPECT_TRUE(machine.interrupts.irqFds.empty());
  EXPECT_EQ(machine.read(machine.mmio, 0xc0000000, 4), NOTHING_THERE);
}

}  // namespace
}  // namespace troupe::broker
