# For a process with more threads than one. They are made in `start`; what a thread may do then is
# in its own filter (thread { ... }), which includes thread.profile.
start {
  rule {
    syscall: "clone"
    arg { index: 0 value: "CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_SETTLS|CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID" }
    reason: "pthread_create: a thread and nothing else"
  }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_NONE" value: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_PRIVATE|MAP_ANONYMOUS|MAP_STACK" value: "MAP_PRIVATE|MAP_ANONYMOUS|MAP_NORESERVE" }
    reason: "stacks and heaps of threads"
  }
  rule { syscall: "set_robust_list" syscall: "rseq" reason: "registers the thread" }
  rule { syscall: "prctl" arg { index: 0 value: "PR_SET_NAME" } reason: "thread names" }
  rule { syscall: "sched_getaffinity" syscall: "sched_setaffinity" reason: "size of the machine; pinned threads" }
}
run {
  rule { syscall: "mprotect" arg { index: 2 flags: "PROT_READ|PROT_WRITE" } reason: "heaps of threads grow" }
  rule { syscall: "madvise" arg { index: 2 value: "MADV_DONTNEED" } reason: "heaps and stacks of threads shrink" }
}
