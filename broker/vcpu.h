#pragma once

#include <kj/common.h>
#include <kj/function.h>
#include <kj/io.h>
#include <pthread.h>

#include <atomic>
#include <cstdint>

#include "broker/bus.h"
#include "broker/end_latch.h"
#include "broker/host_memory.h"
#include "broker/run_gate.h"

struct kvm_run;

namespace troupe::broker {

// Where accesses of vCPUs go and how the VM's end is told. Outlives every vCPU.
struct VcpuSurroundings {
  Bus& mmio;
  Bus& pio;
  EndLatch& end;
  RunGate& gate;
  const HostMemory& hostMemory;
};

// One vCPU and its thread, called vp-N. The thread hands what KVM hands it to the two buses and
// waits for nothing but KVM and the gate. While it is at the gate nobody uses the vCPU, and its
// state may be set by others.
class Vcpu {
 public:
  // `fd` is a KVM vCPU whose registers are set before the gate opens. Its kvm_run has `runSize`
  // bytes.
  Vcpu(uint32_t index, kj::AutoCloseFd fd, size_t runSize, VcpuSurroundings surroundings);

  // Dismisses all who wait at the gate, and waits for the thread.
  ~Vcpu() noexcept(false);
  KJ_DISALLOW_COPY(Vcpu);

  // Starts the thread, which calls `enterJail` and then waits at the gate. A failure of either ends
  // the VM.
  void start(kj::Function<void()> enterJail);

  // Makes the thread leave the guest soon and look at the gate. Any thread.
  void kick();

  int fd() const { return vcpu; }

  // KVM_RUN returns so far. Any thread.
  uint64_t exits() const { return exitCount.load(std::memory_order_relaxed); }

  // The signal kick() uses. To be called once in the process before any start().
  static void claimKickSignal();

 private:
  static void* threadMain(void* self);
  bool prepareThread();
  void runGuest();
  bool runOnce();
  void finishExit();
  bool handleExit();
  void handlePortAccess();
  bool handleMemoryAccess();
  bool loseHostMemory(kj::StringPtr how);
  kj::String where() const;
  bool endVm(EndReason reason, kj::String detail);

  uint32_t index;
  kj::AutoCloseFd vcpu;
  size_t runSize;
  VcpuSurroundings around;
  kvm_run* run;
  kj::Maybe<kj::Function<void()>> enterJail;
  kj::Maybe<pthread_t> thread;
  std::atomic<bool> isAtGate{false};
  std::atomic<uint64_t> exitCount{0};
};

}  // namespace troupe::broker
