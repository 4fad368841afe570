# What glibc 2.36 does in a static PIE between exec and main().
start {
  rule { syscall: "arch_prctl" arg { index: 0 value: "ARCH_SET_FS" } reason: "thread pointer of the first thread" }
  rule { syscall: "set_tid_address" syscall: "set_robust_list" syscall: "rseq" reason: "registers the first thread" }
  rule { syscall: "prlimit64" arg { index: 0 value: "0" } arg { index: 2 value: "0" } reason: "reads the stack limit" }
  rule { syscall: "readlink" syscall: "readlinkat" reason: "looks for its own folder; the root is empty and has no such link" }
  rule { syscall: "getrandom" arg { index: 2 value: "0" value: "GRND_NONBLOCK" } reason: "malloc's keys; stack protector" }
  rule { syscall: "mprotect" arg { index: 2 flags: "PROT_READ" } reason: "relocated constants become read-only" }
  rule { syscall: "uname" syscall: "sysinfo" syscall: "sched_getaffinity" reason: "size of the machine, asked by libraries" }
}
