# A thread's own needs, for the `include` of a thread's filter.
run {
  rule { syscall: "exit" syscall: "exit_group" reason: "end of the thread, or of the process" }
  rule {
    syscall: "futex"
    arg { index: 1 value: "FUTEX_WAIT_PRIVATE" value: "FUTEX_WAKE_PRIVATE" value: "FUTEX_WAIT_BITSET_PRIVATE" value: "FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME" }
    reason: "locks and events between threads"
  }
  rule { syscall: "rt_sigprocmask" reason: "pthread_exit and abort() block signals" }
  rule { syscall: "madvise" arg { index: 2 value: "MADV_DONTNEED" } reason: "gives its stack back" }
  rule { syscall: "brk" reason: "heap grows and shrinks" }
  rule { syscall: "munmap" reason: "frees large blocks" }
  rule { syscall: "mprotect" arg { index: 2 flags: "PROT_READ|PROT_WRITE" } reason: "heaps of threads grow" }
  rule {
    syscall: "mmap"
    arg { index: 2 flags: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_PRIVATE|MAP_ANONYMOUS" value: "MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE" }
    reason: "large blocks and heaps of threads"
  }
  rule { syscall: "getpid" syscall: "gettid" reason: "abort()" }
  rule { syscall: "tgkill" arg { index: 2 value: "SIGABRT" } reason: "abort(): a failed assertion" }
  rule { syscall: "clock_gettime" reason: "on a machine whose clock the vdso cannot read" }
}
