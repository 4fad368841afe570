# Lines for `troupe`, through the pipe it reads.
fd { name: "log" number: 2 kind: PIPE }

run {
  rule { syscall: "write" syscall: "writev" fd: "log" reason: "log lines; the last words of a crash" }
}
