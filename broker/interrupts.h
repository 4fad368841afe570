#pragma once

#include <cstdint>

namespace troupe::broker {

// The machine's interrupt and notification wiring, as PCI functions use it; KVM's in-kernel irqchip
// behind it (kvm_interrupts.h), a fake in tests. Any thread. None of these block or throw for
// anything a guest chose: what the kernel refuses is answered false and stays undone.
class Interrupts {
 public:
  // One GSI per MSI-X vector, taken when the function is made, FIRST_MSI_GSI and up; the kernel has
  // 4096. Throws when they are used up (a configuration error, not a guest's).
  virtual uint32_t allocateMsiGsi() = 0;

  // The message that `gsi` sends from now on. False when the kernel refuses it.
  virtual bool setMsi(uint32_t gsi, uint64_t address, uint32_t data) = 0;

  // Connects or disconnects an eventfd: while attached, KVM raises `gsi` when it is written.
  // Attaching to a non-empty eventfd raises at once; the caller drains it afterwards.
  virtual bool attachIrqFd(uint32_t gsi, int eventFd) = 0;
  virtual void detachIrqFd(uint32_t gsi, int eventFd) = 0;

  // Sends the message of `gsi` once, from the broker itself.
  virtual void sendMsi(uint32_t gsi) = 0;

  // A level-triggered pin of the I/O APIC. Callers sharing a pin combine levels themselves through
  // IntxLines (intx_lines.h).
  virtual void setLine(uint32_t gsi, bool level) = 0;

  // Connects or disconnects an eventfd to guest writes at `address` of any width (length 0).
  virtual bool attachIoEventFd(uint64_t address, int eventFd) = 0;
  virtual void detachIoEventFd(uint64_t address, int eventFd) = 0;
};

}  // namespace troupe::broker
