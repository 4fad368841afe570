#pragma once

#include <kj/array.h>
#include <kj/async-io.h>
#include <kj/common.h>
#include <kj/function.h>
#include <kj/memory.h>

#include <atomic>
#include <cstdint>

#include "broker/acpi_ports.h"
#include "broker/boot_info.h"
#include "broker/bus.h"
#include "broker/cpu_features.h"
#include "broker/end_latch.h"
#include "broker/fd_table.h"
#include "broker/guest_ram.h"
#include "broker/host_memory.h"
#include "broker/intx_lines.h"
#include "broker/kvm_interrupts.h"
#include "broker/kvm_vm.h"
#include "broker/panic_port.h"
#include "broker/pci_bus.h"
#include "broker/serial_port.h"
#include "broker/vcpu.h"
#include "broker/vcpu_power_on.h"
#include "broker/virtio_pci_function.h"

namespace troupe::broker {

struct MachineSettings {
  uint32_t vcpus;        // 1 to 255
  uint64_t memoryBytes;  // a multiple of 2 MiB
  kj::Array<CpuFeature> maskedFeatures;
  kj::Maybe<int> serial;                   // socket of COM1; borrowed
  int ram;                                 // the memfd of guest RAM; borrowed
  kj::Array<RamRegion> regions = nullptr;  // where RAM lies; empty: where ramRegions() says
  kj::Array<HostRegion> hostMemory = nullptr;
};

// What the machine is built on. All of it outlives the machine.
struct MachineGround {
  KvmVm& vm;
  FdTable& fds;
  Mailbox& mailbox;
  kj::UnixEventPort& events;
};

// One whole virtual machine but for its devices on PCI: RAM, vCPUs, interrupts, buses and the
// registers that lie outside of PCI. Main thread, in the order load(), start(), run(). From then on
// it can be paused, and made as after power-on, to be loaded and run another time.
class Machine {
 public:
  // Throws errors for the user where the host refuses (TRP-host-, TRP-kvm-).
  Machine(MachineSettings settings, MachineGround ground);
  ~Machine() noexcept(false);
  KJ_DISALLOW_COPY(Machine);

  // What a device on the PCI bus is plugged into.
  PciSocket pciSocket();

  // Puts a kernel and what belongs to it into RAM (boot_image.h, boot_info.h).
  BootState load(const BootFile& kernel, KernelKind kind, const BootExtras& extras);

  // Makes the vCPUs' threads, which call `enterJail` and wait. Returns when all do. load() is over.
  void start(kj::Function<void()> enterJail);

  // Lets the vCPUs go, unless the machine is paused.
  void run() { gate.release(Hold::START); }

  // Resolves when no vCPU is inside of the guest, nor will be before resume().
  kj::Promise<void> pause();
  // Guests that use KVM's clock are told that they stood still, so that their watchdogs bear it.
  kj::Promise<void> resume();
  bool isPaused() const { return gate.isHeld(Hold::PAUSED); }

  // Stops the vCPUs and forgets how the guest ended. Resolves when none of them runs; then
  // functions on PCI are to be reset, and powerOn() comes next.
  kj::Promise<void> powerOff();

  // Everything as before the guest's first instruction but for what lies on PCI and what is the
  // host's memory; RAM has no page.
  // load() and runAgain() come next.
  kj::Promise<void> powerOn();

  void runAgain();

  void pressPowerButton() { acpiPorts.pressPowerButton(); }

  EndLatch& end() { return endLatch; }

  // After its end: resolves when its serial port's last bytes are on their way, or nobody has taken
  // them for a second.
  kj::Promise<void> lastWords();

  const GuestRam& ram() const { return guestRam; }

  // KVM_RUN returns of all vCPUs.
  uint64_t exits() const;

 private:
  void addPlatformDevices();
  void addVcpus(const MachineSettings& settings);
  kj::Promise<void> whenVcpusRest(Hold why);
  kj::Promise<void> clearRam(uint64_t offset);
  kj::Promise<void> kickAtEnd();
  GuestRequest endRequest(EndReason reason);
  void notePanic();

  MachineGround ground;
  GuestRam guestRam;
  HostMemory hostMemory;
  KvmInterrupts interrupts;
  IntxLines intxLines;
  Bus mmio;
  Bus pio;
  RunGate gate;
  EndLatch endLatch;
  PciBus pci;
  SerialPort serialPort;
  AcpiPorts acpiPorts;
  ResetPort resetPort;
  PanicPort panicPort;
  std::atomic<bool> panicked{false};
  kj::Promise<void> panicking = nullptr;  // until what it prints has come out
  uint8_t physicalAddressBits = 36;
  kj::Maybe<BootState> boot;
  kj::Vector<kj::Own<VcpuPowerOn>> freshVcpus;  // one for each
  kj::Vector<kj::Own<Vcpu>> vcpus;
  kj::Promise<void> stopping = nullptr;
};

}  // namespace troupe::broker
