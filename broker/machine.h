#pragma once

#include <kj/array.h>
#include <kj/async-io.h>
#include <kj/common.h>
#include <kj/function.h>
#include <kj/memory.h>

#include <cstdint>

#include "broker/acpi_ports.h"
#include "broker/boot_info.h"
#include "broker/bus.h"
#include "broker/cpu_features.h"
#include "broker/end_latch.h"
#include "broker/fd_table.h"
#include "broker/guest_ram.h"
#include "broker/intx_lines.h"
#include "broker/kvm_interrupts.h"
#include "broker/kvm_vm.h"
#include "broker/pci_bus.h"
#include "broker/serial_port.h"
#include "broker/vcpu.h"
#include "broker/virtio_pci_function.h"

namespace troupe::broker {

struct MachineSettings {
  uint32_t vcpus;        // 1 to 255
  uint64_t memoryBytes;  // a multiple of 2 MiB
  kj::Array<CpuFeature> maskedFeatures;
  kj::Maybe<int> serial;  // socket of COM1; borrowed
  int ram;                // the memfd of guest RAM; borrowed
};

// What the machine is built on. All of it outlives the machine.
struct MachineGround {
  KvmVm& vm;
  FdTable& fds;
  Mailbox& mailbox;
  kj::UnixEventPort& events;
};

// One whole virtual machine but for its devices on PCI: RAM, vCPUs, interrupts, buses and the
// registers that lie outside of PCI. Main thread, in the order load(), start(), run().
class Machine {
 public:
  // Throws errors for the user where the host refuses (TRP-host-, TRP-kvm-).
  Machine(MachineSettings settings, MachineGround ground);
  ~Machine() noexcept(false);
  KJ_DISALLOW_COPY(Machine);

  // What a device on the PCI bus is plugged into.
  PciSocket pciSocket();

  // Puts a kernel and what belongs to it into RAM (boot_image.h, boot_info.h).
  BootState load(const BootFile& kernel, kj::Maybe<const BootFile&> initrd,
                 kj::StringPtr commandLine);

  // Makes the vCPUs' threads, which call `enterJail` and wait. Returns when all do. load() is over.
  void start(kj::Function<void()> enterJail);

  // Lets the vCPUs go.
  void run();

  void pressPowerButton() { acpiPorts.pressPowerButton(); }

  EndLatch& end() { return endLatch; }
  const GuestRam& ram() const { return guestRam; }

  // KVM_RUN returns of all vCPUs.
  uint64_t exits() const;

 private:
  void addPlatformDevices();
  void addVcpus(const MachineSettings& settings);
  GuestRequest endRequest(EndReason reason);

  MachineGround ground;
  GuestRam guestRam;
  KvmInterrupts interrupts;
  IntxLines intxLines;
  Bus mmio;
  Bus pio;
  EndLatch endLatch;
  PciBus pci;
  SerialPort serialPort;
  AcpiPorts acpiPorts;
  ResetPort resetPort;
  StartGate gate;
  uint8_t physicalAddressBits = 36;
  kj::Maybe<BootState> boot;
  kj::Vector<kj::Own<Vcpu>> vcpus;
  kj::Promise<void> stopping = nullptr;
};

}  // namespace troupe::broker
