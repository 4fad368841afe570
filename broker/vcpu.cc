#include "broker/vcpu.h"

#include <kj/debug.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "broker/kvm_call.h"
#include "third_party/linux_kvm.h"

namespace troupe::broker {
namespace {

constexpr int KICK_SIGNAL = SIGUSR2;       // KJ's event loop has SIGUSR1
constexpr size_t STACK_SIZE = 128 * 1024;  // a vCPU thread calls a few registers deep

void ignoreKick(int) {}

kj::StringPtr internalErrorName(uint32_t suberror) {
  switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
      return "an instruction KVM cannot emulate";
    case KVM_INTERNAL_ERROR_SIMUL_EX:
      return "two exceptions at once";
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
      return "an exception it could not deliver";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
      return "an exit it did not expect";
  }
  return "an unknown cause";
}

}  // namespace

void Vcpu::claimKickSignal() {
  // It need do nothing but interrupt KVM_RUN, so no SA_RESTART.
  struct sigaction action {};
  action.sa_handler = ignoreKick;
  KJ_SYSCALL(sigaction(KICK_SIGNAL, &action, nullptr));
}

Vcpu::Vcpu(uint32_t index, kj::AutoCloseFd fd, size_t runSize, VcpuSurroundings surroundings)
    : index(index), vcpu(kj::mv(fd)), runSize(runSize), around(surroundings) {
  void* pointer = mmap(nullptr, runSize, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  if (pointer == MAP_FAILED) KJ_FAIL_SYSCALL("mmap(vcpu)", errno);
  run = static_cast<kvm_run*>(pointer);
}

Vcpu::~Vcpu() noexcept(false) {
  KJ_IF_MAYBE (t, thread) {
    around.gate.hold(Hold::ENDED);
    around.gate.dismiss();
    kick();
    pthread_join(*t, nullptr);
  }
  munmap(run, runSize);
}

void Vcpu::start(kj::Function<void()> enter) {
  enterJail = kj::mv(enter);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  KJ_DEFER(pthread_attr_destroy(&attributes));
  pthread_attr_setstacksize(&attributes, STACK_SIZE);
  pthread_t made;
  int error = pthread_create(&made, &attributes, &threadMain, this);
  if (error != 0) KJ_FAIL_SYSCALL("pthread_create", error, index);
  thread = made;
}

void Vcpu::kick() {
  // Whether the thread is about to enter the guest or inside of it: one of the two gets it out.
  __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_SEQ_CST);
  // One that leaves the gate now looks at it again before it enters. A signal costs `troupe`, which
  // traces this process, a turn.
  if (isAtGate) return;
  KJ_IF_MAYBE (t, thread) pthread_kill(*t, KICK_SIGNAL);
}

void* Vcpu::threadMain(void* self) {
  auto& vcpu = *static_cast<Vcpu*>(self);
  auto problem = kj::runCatchingExceptions([&vcpu]() {
    if (vcpu.prepareThread()) return vcpu.runGuest();
    vcpu.around.gate.arrive();  // and stays there
  });
  KJ_IF_MAYBE (exception, problem) {
    vcpu.endVm(EndReason::FAILED, kj::str(exception->getDescription()));
    vcpu.around.gate.arrive();
  }
  return nullptr;
}

bool Vcpu::prepareThread() {
  pthread_setname_np(pthread_self(), kj::str("vp-", index).cStr());
  auto problem = kj::runCatchingExceptions([this]() {
    KJ_IF_MAYBE (enter, enterJail) (*enter)();
  });
  KJ_IF_MAYBE (exception, problem) {
    return endVm(EndReason::FAILED, kj::str(exception->getDescription()));
  }
  return true;
}

void Vcpu::runGuest() {
  for (bool hasRun = false;;) {
    if (around.gate.isClosed()) {
      if (hasRun) finishExit();
      isAtGate = true;
      around.gate.arrive();
      if (!around.gate.pass()) return;
      isAtGate = false;
    } else {
      hasRun = true;
      if (runOnce()) continue;
    }
    // A kick is over. Who holds the gate kicks after that, so either it is seen to be held or the
    // next entry does not happen.
    __atomic_store_n(&run->immediate_exit, 0, __ATOMIC_SEQ_CST);
  }
}

// Enters the guest and serves what it left for. False when nothing is left to be served.
bool Vcpu::runOnce() {
  int result = ::ioctl(vcpu, KVM_RUN, 0);
  exitCount.fetch_add(1, std::memory_order_relaxed);
  if (result >= 0) return handleExit();
  if (errno == EINTR || errno == EAGAIN) return false;
  // Guest RAM keeps its size, and so it is not that.
  bool hasHostMemory = around.hostMemory.regions().size() > 0;
  if (errno == EFAULT && hasHostMemory) return loseHostMemory("KVM_RUN fails (Bad address)");
  return endVm(EndReason::FAILED,
               kj::str("KVM_RUN fails on vCPU ", index, where(), ": ", strerror(errno)));
}

// Lets KVM complete the instruction that led out of the guest, without entering it again: until
// then registers that are set would be changed once more. A string instruction leaves once for each
// of its pieces, of which KVM does 1024 in a row.
void Vcpu::finishExit() {
  constexpr uint32_t MOST_PIECES = 4096;
  __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_SEQ_CST);
  for (uint32_t i = 0; i < MOST_PIECES; ++i) {
    if (!runOnce()) return;
  }
  endVm(EndReason::FAILED, kj::str("vCPU ", index, where(), " does not come to rest"));
}

// False when it led to the guest's end.
bool Vcpu::handleExit() {
  switch (run->exit_reason) {
    case KVM_EXIT_IO:
      handlePortAccess();
      return true;
    case KVM_EXIT_MMIO:
      return handleMemoryAccess();
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return true;
    case KVM_EXIT_SHUTDOWN:
      return endVm(EndReason::CRASHED, kj::str("triple fault on vCPU ", index, where()));
    case KVM_EXIT_INTERNAL_ERROR:
      return endVm(EndReason::CRASHED, kj::str("KVM gives up on vCPU ", index, where(), ": ",
                                               internalErrorName(run->internal.suberror),
                                               " (suberror ", run->internal.suberror, ")"));
    case KVM_EXIT_FAIL_ENTRY:
      return endVm(
          EndReason::CRASHED,
          kj::str("the processor refuses the state of vCPU ", index, where(),
                  ": hardware reason 0x", kj::hex(run->fail_entry.hardware_entry_failure_reason)));
    case KVM_EXIT_SYSTEM_EVENT:
      switch (run->system_event.type) {
        case KVM_SYSTEM_EVENT_SHUTDOWN:
          return endVm(EndReason::POWERED_OFF, kj::str(""));
        case KVM_SYSTEM_EVENT_RESET:
          return endVm(EndReason::RESET, kj::str(""));
      }
      return endVm(EndReason::CRASHED, kj::str("the guest reports a crash on vCPU ", index));
  }
  return endVm(EndReason::FAILED, kj::str("vCPU ", index, where(),
                                          " leaves KVM for a reason "
                                          "nobody asked for (",
                                          run->exit_reason, ")"));
}

void Vcpu::handlePortAccess() {
  // String instructions come as several accesses to one port.
  auto& io = run->io;
  kj::byte* data = reinterpret_cast<kj::byte*>(run) + io.data_offset;
  for (uint32_t i = 0; i < io.count; ++i, data += io.size) {
    auto bytes = kj::arrayPtr(data, io.size);
    if (io.direction == KVM_EXIT_IO_IN) {
      around.pio.read(io.port, bytes);
    } else {
      around.pio.write(io.port, bytes);
    }
  }
}

bool Vcpu::handleMemoryAccess() {
  auto& mmio = run->mmio;
  // KVM carries out some instructions itself, and takes memory that is not there for a register.
  if (around.hostMemory.holds(mmio.phys_addr)) {
    return loseHostMemory(kj::str("0x", kj::hex(mmio.phys_addr), " cannot be reached"));
  }
  auto bytes = kj::arrayPtr(reinterpret_cast<kj::byte*>(mmio.data), kj::min(mmio.len, 8u));
  if (mmio.is_write) {
    around.mmio.write(mmio.phys_addr, bytes);
  } else {
    around.mmio.read(mmio.phys_addr, bytes);
  }
  return true;
}

bool Vcpu::loseHostMemory(kj::StringPtr how) {
  return endVm(EndReason::HOST_MEMORY_LOST, kj::str("vCPU ", index, where(), ": ", how));
}

// " at RIP 0x…", when KVM says so.
kj::String Vcpu::where() const {
  kvm_regs regs;
  if (::ioctl(vcpu, KVM_GET_REGS, &regs) < 0) return kj::str("");
  return kj::str(" at RIP 0x", kj::hex(regs.rip));
}

bool Vcpu::endVm(EndReason reason, kj::String detail) {
  around.end.report(MachineEnd{reason, kj::mv(detail), 0});
  return false;
}

}  // namespace troupe::broker
