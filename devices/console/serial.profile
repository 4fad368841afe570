# The host's side of the 16550. It speaks to nobody by RPC: where others have their pipe to the
# broker, it has the socket that carries the port's bytes.
#
# Every number below "client" is in use while it serves a socket, so that accept() makes each
# connection at a number of "client": the lowest that is free. There is one more of them than there
# can be clients, for the one that is told so.
actor: "serial"
include: "sandbox/common/jail.profile"
include: "sandbox/common/libc.profile"
include: "sandbox/common/setup.profile"
include: "sandbox/common/log.profile"
include: "sandbox/common/event_loop.profile"
include: "devices/console/backend.profile"

fd { name: "uart" number: 3 kind: SOCKET }
fd { name: "listen" number: 5 kind: SOCKET optional: true }
fd { name: "client" number: 6 count: 17 kind: SOCKET from: PLACED optional: true }
fd { name: "in" number: 23 kind: ANY optional: true }
fd { name: "out" number: 24 kind: ANY optional: true }
fd { name: "pty" number: 25 kind: TERMINAL optional: true }

run {
  rule { syscall: "read" syscall: "write" fd: "uart" reason: "the port's bytes" }
}

# Its successor goes on with the same socket and files.
restart { policy: ALWAYS restarts: 10 seconds: 60 }

# A MiB kept for readers, sixteen readers, three threads; and the host's page cache of what is
# written to a file.
cgroup {
  memory_max { value: 268435456 optional: "yes" }
  pids_max { value: 8 optional: "yes" }
}

budget { filter: "run" syscalls: 11 unconditional: 4 }
budget { filter: "thread:input" syscalls: 4 unconditional: 1 }
budget { filter: "thread:output" syscalls: 3 unconditional: 1 }
