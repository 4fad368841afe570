#include "devices/virtio/testing/access_recorder.h"

#include <kj/debug.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstring>

namespace troupe::virtio::testing {
namespace {

constexpr greg_t TRAP_FLAG = 0x100;         // of EFLAGS: stop after one instruction
constexpr greg_t PAGE_FAULT_WAS_WRITE = 2;  // in the error code

// What the handlers work on: they have no other way to it. Nothing is allocated in them.
struct State {
  kj::byte* begin = nullptr;
  size_t size = 0;
  size_t count = 0;
  AccessRecorder::Access accesses[4096];
  struct sigaction oldFault;
  struct sigaction oldTrap;
};
State state;

void onFault(int, siginfo_t* info, void* context) {
  auto address = static_cast<kj::byte*>(info->si_addr);
  if (address < state.begin || address >= state.begin + state.size || state.count == 4096) {
    signal(SIGSEGV, SIG_DFL);  // a fault of the test's own: it comes again and ends the process
    return;
  }
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  state.accesses[state.count++] = {uint64_t(address - state.begin),
                                   (registers[REG_ERR] & PAGE_FAULT_WAS_WRITE) != 0};
  mprotect(state.begin, state.size, PROT_READ | PROT_WRITE);
  registers[REG_EFL] |= TRAP_FLAG;
}

void onTrap(int, siginfo_t*, void* context) {
  mprotect(state.begin, state.size, PROT_NONE);
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

}  // namespace

AccessRecorder::AccessRecorder(kj::ArrayPtr<kj::byte> pages) {
  KJ_REQUIRE(state.begin == nullptr, "one recorder at a time");
  state.begin = pages.begin();
  state.size = pages.size();
  state.count = 0;
  struct sigaction action;
  memset(&action, 0, sizeof(action));
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = onFault;
  KJ_SYSCALL(sigaction(SIGSEGV, &action, &state.oldFault));
  action.sa_sigaction = onTrap;
  KJ_SYSCALL(sigaction(SIGTRAP, &action, &state.oldTrap));
  KJ_SYSCALL(mprotect(state.begin, state.size, PROT_NONE));
}

AccessRecorder::~AccessRecorder() noexcept(false) {
  if (state.begin != nullptr) finish();
}

kj::Array<AccessRecorder::Access> AccessRecorder::finish() {
  KJ_SYSCALL(mprotect(state.begin, state.size, PROT_READ | PROT_WRITE));
  KJ_SYSCALL(sigaction(SIGSEGV, &state.oldFault, nullptr));
  KJ_SYSCALL(sigaction(SIGTRAP, &state.oldTrap, nullptr));
  state.begin = nullptr;
  return kj::heapArray<Access>(state.accesses, state.count);
}

}  // namespace troupe::virtio::testing
