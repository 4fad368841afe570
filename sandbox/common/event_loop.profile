# KJ's event loop, made right after ActorSetup: the kernel gives it the numbers 0, 1 and 4.
fd { name: "epoll" number: 0 kind: EPOLL from: MADE }
fd { name: "signals" number: 1 kind: SIGNALFD from: MADE }
fd { name: "wakeup" number: 4 kind: EVENTFD from: MADE }

start {
  rule { syscall: "epoll_create1" arg { index: 0 value: "EPOLL_CLOEXEC" } reason: "the loop" }
  rule { syscall: "signalfd4" arg { index: 3 value: "SFD_CLOEXEC|SFD_NONBLOCK" } reason: "signals as events" }
  rule { syscall: "eventfd2" arg { index: 1 value: "EFD_CLOEXEC|EFD_NONBLOCK" } reason: "wake-ups from other threads" }
  rule { syscall: "rt_sigaction" reason: "ignores SIGPIPE" }
  rule { syscall: "rt_sigprocmask" reason: "blocks the signals the loop waits for" }
  rule { syscall: "ioctl" arg { index: 1 value: "FIONBIO" value: "FIOCLEX" } reason: "prepares an fd for the loop" }
  rule { syscall: "fcntl" arg { index: 1 value: "F_GETFD" value: "F_SETFD" value: "F_GETFL" value: "F_SETFL" } reason: "prepares an fd for the loop" }
}
run {
  rule { syscall: "epoll_wait" fd: "epoll" reason: "waits for work" }
  rule { syscall: "epoll_ctl" fd: "epoll" reason: "adds and drops fds" }
  rule { syscall: "read" fd: "signals" fd: "wakeup" reason: "takes a signal, a wake-up" }
  rule { syscall: "write" fd: "wakeup" reason: "wakes the loop from another thread" }
  rule { syscall: "clock_gettime" reason: "timers, on a machine whose clock the vdso cannot read" }
  rule {
    syscall: "futex"
    arg { index: 1 value: "FUTEX_WAIT_PRIVATE" value: "FUTEX_WAKE_PRIVATE" value: "FUTEX_WAIT_BITSET_PRIVATE" value: "FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME" }
    reason: "locks, once-flags, events between threads"
  }
}
