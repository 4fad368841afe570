#pragma once

#include <kj/common.h>
#include <kj/function.h>
#include <kj/io.h>
#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "broker/bus.h"
#include "broker/end_latch.h"

struct kvm_run;

namespace troupe::broker {

// Holds vCPU threads back until the VM may run.
class StartGate {
 public:
  void open();

  // Blocks until `count` threads have arrived.
  void awaitArrivals(uint32_t count);

  // Says that one more thread is at the gate, or never will be.
  void arrive();

  // Blocks until the gate is open.
  void pass();

 private:
  std::mutex mutex;  // a mutex the thread sanitizer knows, unlike KJ's
  std::condition_variable changed;
  bool isOpen = false;
  uint32_t arrived = 0;
};

// Where accesses of vCPUs go and how the VM's end is told. Outlives every vCPU.
struct VcpuSurroundings {
  Bus& mmio;
  Bus& pio;
  EndLatch& end;
  StartGate& gate;
};

// One vCPU and its thread, called vp-N. The thread hands what KVM hands it to the two buses and
// waits for nothing but KVM.
class Vcpu {
 public:
  // `fd` is a KVM vCPU whose registers are set before the gate opens. Its kvm_run has `runSize`
  // bytes.
  Vcpu(uint32_t index, kj::AutoCloseFd fd, size_t runSize, VcpuSurroundings surroundings);

  // Stops the thread and waits for it.
  ~Vcpu() noexcept(false);
  KJ_DISALLOW_COPY(Vcpu);

  // Starts the thread, which calls `enterJail` and then waits at the gate. A failure of either ends
  // the VM.
  void start(kj::Function<void()> enterJail);

  // Makes the thread leave the guest and end soon. Any thread.
  void stop();

  int fd() const { return vcpu; }

  // KVM_RUN returns so far. Any thread.
  uint64_t exits() const { return exitCount.load(std::memory_order_relaxed); }

  // The signal stop() uses. To be called once in the process before any start().
  static void claimKickSignal();

 private:
  static void* threadMain(void* self);
  bool prepareThread();
  void runGuest();
  bool handleExit();
  void handlePortAccess();
  void handleMemoryAccess();
  kj::String where() const;
  bool endVm(EndReason reason, kj::String detail);

  uint32_t index;
  kj::AutoCloseFd vcpu;
  size_t runSize;
  VcpuSurroundings around;
  kvm_run* run;
  kj::Maybe<kj::Function<void()>> enterJail;
  kj::Maybe<pthread_t> thread;
  std::atomic<bool> stopping{false};
  std::atomic<uint64_t> exitCount{0};
};

}  // namespace troupe::broker
