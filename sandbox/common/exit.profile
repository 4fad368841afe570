# The end of the process, wanted or not.
run {
  rule { syscall: "exit_group" reason: "end" }
  rule { syscall: "getpid" syscall: "gettid" syscall: "rt_sigprocmask" reason: "abort(): to whom, with signals blocked" }
  rule { syscall: "tgkill" arg { index: 2 value: "SIGABRT" } reason: "abort(): a failed assertion" }
  rule { syscall: "rt_sigaction" arg { index: 0 value: "SIGABRT" } reason: "abort(): back to the default action" }
}
