#include "sandbox/limits/clone_into.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>

namespace troupe::sandbox {

pid_t cloneInto(int cgroup, int (*function)(void*), void* argument, void* stack, size_t stackSize,
                uint64_t flags, int* pidFd) {
  clone_args arguments = {};
  arguments.flags = flags | CLONE_PIDFD | CLONE_INTO_CGROUP;
  arguments.pidfd = reinterpret_cast<uintptr_t>(pidFd);
  arguments.exit_signal = SIGCHLD;
  arguments.stack = reinterpret_cast<uintptr_t>(stack);
  arguments.stack_size = stackSize;
  arguments.cgroup = cgroup;

  // glibc has no wrapper. The child begins behind `syscall` with the parent's registers and an
  // empty stack, so nothing of this frame may be reached from there.
  register void* childFunction __asm__("r8") = reinterpret_cast<void*>(function);
  register void* childArgument __asm__("r9") = argument;
  long result;
  __asm__ volatile(
      "syscall\n\t"
      "test %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xor %%ebp, %%ebp\n\t"
      "mov %%r9, %%rdi\n\t"
      "call *%%r8\n\t"
      "ud2\n\t"
      "1:"
      : "=a"(result)
      : "a"(long{SYS_clone3}), "D"(&arguments), "S"(sizeof(arguments)), "r"(childFunction),
        "r"(childArgument)
      : "rcx", "r11", "memory", "cc");
  if (result >= 0) return pid_t(result);
  errno = -int(result);
  return -1;
}

}  // namespace troupe::sandbox
