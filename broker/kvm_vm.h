#pragma once

#include <kj/common.h>
#include <kj/io.h>

#include <cstdint>

#include "broker/fd_table.h"
#include "broker/guest_ram.h"
#include "broker/host_memory.h"
#include "third_party/linux_kvm.h"

namespace troupe::broker {

// The kernel's side of the machine: one KVM VM and what the host's KVM can do.
//
// The order of calls matters for speed: a memory slot made after the interrupt controllers costs a
// hundred times one made before them.
class KvmVm {
 public:
  // `kvm`: /dev/kvm, borrowed for good. Throws TRP-kvm-001 when it is no KVM, TRP-kvm-002 when it
  // lacks something we need. KVM answers only the process that makes the VM.
  KvmVm(int kvm, FdTable& fds);
  KJ_DISALLOW_COPY(KvmVm);

  // Gives the guest its RAM and what it has of the host's memory, which must outlive this object.
  void addMemory(const GuestRam& ram, const HostMemory& host);

  // Makes the I/O APIC and a local APIC per vCPU to come. There is no PIT; the PIC that KVM makes
  // besides is never connected (KvmInterrupts).
  void addInterruptControllers();

  // Puts the interrupt controllers back to what they were when they were made. To be called while
  // no vCPU runs and no line is asserted.
  void resetInterruptControllers();

  // Throws TRP-kvm-004 when the host's KVM does not do that many.
  void requireVcpus(uint32_t count) const;

  // A new vCPU, placed as fd "vcpu".
  kj::AutoCloseFd addVcpu(uint32_t index, FdTable& fds) const;

  int kvm() const { return kvmFd; }
  int fd() const { return vm; }
  size_t runSize() const { return vcpuRunSize; }
  bool hasTscDeadlineTimer() const { return tscDeadlineTimer; }

 private:
  int extension(int cap) const;
  void addSlot(uint32_t index, uint64_t guestAddress, uint64_t size, const void* mapping);

  int kvmFd;
  kj::AutoCloseFd vm;
  size_t vcpuRunSize;
  bool tscDeadlineTimer;
  kvm_irqchip freshControllers[3] = {};  // by number: two PICs, the I/O APIC
};

}  // namespace troupe::broker
