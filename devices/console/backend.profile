# What the actors `console` and `serial` share: their back ends (open_backend.h). Each declares the
# fds itself: "listen", "client", "in", "out", "pty".

start {
  rule { syscall: "mmap" arg { index: 2 value: "PROT_READ|PROT_WRITE" } arg { index: 3 value: "MAP_PRIVATE|MAP_ANONYMOUS" } reason: "large blocks, before malloc is told to take all from the heap" }
  rule { syscall: "munmap" reason: "frees large blocks" }
  rule { syscall: "ioctl" fd: "in" fd: "out" arg { index: 1 value: "TCGETS" } reason: "whether it is a terminal, where the detach key counts and EIO means gone" }

  # A thread for each of the fds "in" and "out", whose calls may block. threads.profile would leave
  # mprotect and madvise to the whole process; with one heap for all threads nobody needs them.
  rule {
    syscall: "clone"
    arg { index: 0 value: "CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_SETTLS|CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID" }
    reason: "pthread_create: a thread and nothing else"
  }
  rule { syscall: "mmap" arg { index: 2 value: "PROT_NONE" } arg { index: 3 value: "MAP_PRIVATE|MAP_ANONYMOUS|MAP_STACK" } reason: "stacks of threads" }
  rule { syscall: "mprotect" arg { index: 2 value: "PROT_READ|PROT_WRITE" } reason: "stacks of threads, but for their guard page" }
  rule { syscall: "set_robust_list" syscall: "rseq" reason: "registers the thread" }
  rule { syscall: "prctl" arg { index: 0 value: "PR_SET_NAME" } reason: "thread names" }
  rule { syscall: "rt_sigprocmask" reason: "no signal meets a thread half made" }
}

run {
  rule { syscall: "accept4" fd: "listen" arg { index: 3 value: "SOCK_NONBLOCK|SOCK_CLOEXEC" } reason: "readers connect" }
  rule { syscall: "read" fd: "client" fd: "pty" reason: "what is typed" }
  rule { syscall: "write" fd: "client" fd: "pty" reason: "what the guest prints" }
  rule { syscall: "close" reason: "a reader has left" }
  rule { syscall: "brk" reason: "heap grows and shrinks; malloc maps nothing" }
  rule { syscall: "exit_group" reason: "end; the detach key" }
}

thread {
  name: "input"
  rule { syscall: "read" fd: "in" reason: "what is typed" }
  rule { syscall: "write" fd: "wakeup" reason: "tells the event loop" }
  rule { syscall: "futex" arg { index: 1 value: "FUTEX_WAIT_PRIVATE" value: "FUTEX_WAKE_PRIVATE" value: "FUTEX_WAIT_BITSET_PRIVATE" } reason: "waits to be asked for more" }
  rule { syscall: "brk" reason: "frees what the event loop gave it" }
}

thread {
  name: "output"
  rule { syscall: "write" fd: "out" reason: "what the guest prints" }
  rule { syscall: "write" fd: "wakeup" reason: "tells the event loop" }
  rule { syscall: "futex" arg { index: 1 value: "FUTEX_WAIT_PRIVATE" value: "FUTEX_WAKE_PRIVATE" value: "FUTEX_WAIT_BITSET_PRIVATE" } reason: "waits for more" }
  rule { syscall: "brk" reason: "frees what the event loop gave it" }
}
