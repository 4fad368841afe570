#pragma once

#include <kj/async-io.h>

#include "broker/bus.h"
#include "broker/fd_table.h"
#include "broker/intx_lines.h"
#include "broker/memory_map.h"
#include "broker/pci_bus.h"
#include "broker/pci_config.h"
#include "broker/pci_fakes.h"
#include "broker/virtio_pci_config.h"
#include "broker/virtio_pci_function.h"
#include "broker/virtio_transport.h"

// One virtio function in slot 1 of a machine without KVM, and the guest's hands on it.
namespace troupe::broker {

constexpr uint8_t DRIVER_READY = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;

struct PciMachine {
  ~PciMachine() noexcept {}

  kj::AsyncIoContext io = kj::setupAsyncIo();
  Bus mmio;
  Bus pio;
  PciBus pci{mmio, pio};
  FakeInterrupts interrupts;
  IntxLines intxLines{interrupts};
  FakeMailbox mailbox;
  UnplacedFds fds;

  PciSocket socket() { return {pci, mmio, interrupts, intxLines, mailbox, fds, io.unixEventPort}; }

  uint64_t read(Bus& bus, uint64_t address, size_t width) {
    uint64_t value = 0;
    bus.read(address, kj::arrayPtr(reinterpret_cast<kj::byte*>(&value), width));
    return value;
  }
  void write(Bus& bus, uint64_t address, uint64_t value, size_t width) {
    bus.write(address, kj::arrayPtr(reinterpret_cast<kj::byte*>(&value), width));
  }

  static uint64_t ecam(uint32_t slot, uint32_t reg) { return ECAM_START + slot * 0x8000 + reg; }
  uint64_t config(uint32_t slot, uint32_t reg, size_t width) {
    return read(mmio, ecam(slot, reg), width);
  }
  void setConfig(uint32_t slot, uint32_t reg, uint64_t value, size_t width) {
    write(mmio, ecam(slot, reg), value, width);
  }

  // Turns the main loop until it has nothing to do.
  void turn() {
    mailbox.runAll();
    io.waitScope.poll();
    mailbox.runAll();
  }
};

struct VirtioBench: public PciMachine {
  explicit VirtioBench(DeviceDescription description = describe(2, {256, 256}))
      : function(description, device, socket()) {}

  uint64_t bar() { return config(1, PCI_BAR0, 4); }
  uint64_t in(uint64_t offset, size_t width) { return read(mmio, bar() + offset, width); }
  void out(uint64_t offset, uint64_t value, size_t width) {
    write(mmio, bar() + offset, value, width);
  }
  void command(uint16_t bits) { setConfig(1, PCI_COMMAND, bits, 2); }
  void status(uint8_t value) { out(BAR_COMMON + DEVICE_STATUS, value, 1); }
  uint8_t status() { return in(BAR_COMMON + DEVICE_STATUS, 1); }

  // The offset of the first capability with this id and, for virtio's, this type. 0: none.
  uint32_t capability(uint8_t id, uint8_t type = 0) {
    for (uint32_t at = config(1, PCI_CAPABILITY_POINTER, 1); at != 0; at = config(1, at + 1, 1)) {
      if (config(1, at, 1) != id) continue;
      if (id != PCI_CAPABILITY_VENDOR || config(1, at + 3, 1) == type) return at;
    }
    return 0;
  }
  void msixControl(uint16_t bits) { setConfig(1, capability(PCI_CAPABILITY_MSIX) + 2, bits, 2); }

  void vector(uint32_t index, uint32_t address, uint32_t data, bool isMasked) {
    uint64_t entry = BAR_TABLE + index * MSIX_ENTRY_SIZE;
    out(entry, address, 4);
    out(entry + 4, 0, 4);
    out(entry + 8, data, 4);
    out(entry + 12, isMasked, 4);
  }

  // As a driver does it: every queue enabled, `queueVectors` for all, vector 0 for the
  // configuration.
  void start(uint16_t queueVector = NO_VECTOR) {
    command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    negotiate();
    if (queueVector != NO_VECTOR) out(CONFIG_MSIX_VECTOR, 0, 2);
    for (uint16_t i = 0; i < function.queueFds().size(); ++i) {
      out(QUEUE_SELECT, i, 2);
      out(QUEUE_MSIX_VECTOR, queueVector, 2);
      out(QUEUE_ENABLE, 1, 2);
    }
    status(DRIVER_READY | STATUS_DRIVER_OK);
    turn();
  }
  void negotiate() {
    status(STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    out(DRIVER_FEATURE_SELECT, 1, 4);
    out(DRIVER_FEATURE, 1, 4);
    status(DRIVER_READY);
  }

  // Starts with MSI-X on and vectors 0 and 1 unmasked.
  void startWithMsix() {
    command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    msixControl(MSIX_CONTROL_ENABLE);
    vector(0, 0xfee00000, 0x30, false);
    vector(1, 0xfee00000, 0x31, false);
    start(1);
  }
  uint64_t raised(uint32_t index) { return interrupts.raised[FIRST_MSI_GSI + index]; }
  void signal(uint16_t queue) { interrupts.signal(function.queueFds()[queue].call); }
  bool line() { return interrupts.lines[PciBus::intxGsi(1)]; }

  FakeDevice device;
  VirtioPciFunction function;
};

}  // namespace troupe::broker
