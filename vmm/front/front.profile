# The front end of a VM's control socket: decodes what outside clients send, forwards typed calls.
actor: "front"
include: "sandbox/common/actor.profile"

# Far above the numbers the kernel gives connections as they arrive, at most 20 at a time: else one
# could arrive where another is about to be put.
fd { name: "client" number: 64 count: 20 kind: SOCKET from: PLACED optional: true }

run {
  rule { syscall: "dup3" arg { index: 1 fd: "client" } arg { index: 2 value: "O_CLOEXEC" } reason: "a new connection takes its place" }
  rule { syscall: "read" fd: "client" reason: "what a client sends" }
  rule { syscall: "write" syscall: "writev" fd: "client" reason: "answers" }
  rule { syscall: "shutdown" fd: "client" arg { index: 1 value: "SHUT_WR" } reason: "orderly end of a connection" }
}

# Twenty clients with full buffers, many times over.
limit { resource: "AS" value: 268435456 }

# Twenty clients with full buffers, many times over.
cgroup {
  memory_max { value: 134217728 optional: "yes" }
  pids_max { value: 4 optional: "yes" }
}

budget { filter: "run" syscalls: 22 unconditional: 8 }
