#pragma once

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/common.h>
#include <kj/memory.h>

#include <cstdint>

#include "broker/bus.h"
#include "broker/fd_table.h"
#include "broker/interrupts.h"
#include "broker/intx_lines.h"
#include "broker/pci_bus.h"
#include "broker/virtio_device.h"

namespace troupe::broker {

// What a function is plugged into. All of it outlives the function.
struct PciSocket {
  PciBus& pci;
  Bus& mmio;
  Interrupts& interrupts;
  IntxLines& intxLines;
  Mailbox& mailbox;
  FdTable& fds;  // given each eventfd as "kick" or "call", with (slot - 1) * MAX_QUEUES + queue
  kj::UnixEventPort& events;  // of the main loop
};

// A virtio device on the PCI bus: the virtio-pci modern transport (§4.1) with MSI-X and INTx.
//
// Guest accesses arrive on vCPU threads and are answered under one mutex from what is known here;
// what the device must be told is gathered and carried to it by the main loop, so a vCPU never
// waits and a guest that hammers registers never makes a queue grow. The VirtioDeviceClient methods
// are the main loop's.
//
// The one memory BAR (32 KiB, layout in virtio_pci_config.h) decodes while the memory space bit is
// on and it lies wholly within the 32-bit MMIO window, where nothing else does; elsewhere it keeps
// its value and answers nothing.
class VirtioPciFunction final: public PciFunction, public VirtioDeviceClient {
 public:
  // Takes the next slot, a BAR address and a GSI per MSI-X vector, and makes the eventfds of every
  // queue. Main thread, before the first vCPU runs. `device` outlives this object. Throws
  // TRP-pci-001 when the bus is full.
  VirtioPciFunction(const DeviceDescription& description, VirtioDevice& device, PciSocket socket);
  ~VirtioPciFunction() noexcept(false);
  KJ_DISALLOW_COPY(VirtioPciFunction);

  uint8_t slot() const;

  // One entry per queue, valid as long as this object.
  kj::ArrayPtr<const QueueFds> queueFds() const;

  // Makes everything as after power-on. Main thread, while no vCPU runs; none may before the
  // promise resolves, which is when the device has let go of its queues or was lost. One at a time.
  kj::Promise<void> powerCycle();

  // Queue notifications that came as an exit instead of through an ioeventfd. Any thread.
  uint64_t notifyExits();

  void configRead(uint32_t offset, kj::ArrayPtr<kj::byte> data) override;
  void configWrite(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override;

  bool configChanged(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override;
  void needsReset() override;
  void resetDone() override;

 private:
  class Registers;
  const uint8_t ownSlot;
  kj::Own<Registers> registers;
};

}  // namespace troupe::broker
