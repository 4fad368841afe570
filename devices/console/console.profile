# The virtio console. Its event loop holds the rings, the pipe to the broker and sockets; standard
# streams and files, which may block, have a thread each.
#
# Not devices/virtio/device.profile, which would bring all of malloc's and abort()'s system calls into
# `run`.
#
# Every number below "client" is in use while it serves a socket, so that accept() makes each
# connection at a number of "client": the lowest that is free.
actor: "console"
include: "sandbox/common/jail.profile"
include: "sandbox/common/libc.profile"
include: "sandbox/common/setup.profile"
include: "sandbox/common/log.profile"
include: "sandbox/common/event_loop.profile"
include: "sandbox/common/rpc.profile"
include: "devices/virtio/attach.profile"
include: "devices/console/backend.profile"

fd { name: "kick" number: 5 count: 2 kind: EVENTFD from: PLACED }
fd { name: "call" number: 7 count: 2 kind: EVENTFD from: PLACED }
fd { name: "listen" number: 9 kind: SOCKET optional: true }
fd { name: "client" number: 10 count: 16 kind: SOCKET from: PLACED optional: true }
fd { name: "in" number: 26 kind: ANY optional: true }
fd { name: "out" number: 27 kind: ANY optional: true }
fd { name: "pty" number: 28 kind: TERMINAL optional: true }
fd { name: "ram" number: 29 kind: MEMFD from: PLACED closed: true }

ready {
  narrow { syscall: "sendmsg" reason: "it gives no fd to anybody" }
}
run {
  rule { syscall: "read" fd: "kick" reason: "the driver's notifications" }
  rule { syscall: "write" fd: "call" reason: "interrupts" }
}

# A MiB kept for readers, sixteen readers, three threads; and the host's page cache of what is
# written to a file. Guest RAM comes on top.
cgroup {
  memory_max { value: 268435456 optional: "yes" }
  pids_max { value: 8 optional: "yes" }
}

budget { filter: "run" syscalls: 13 unconditional: 4 }
budget { filter: "thread:input" syscalls: 4 unconditional: 1 }
budget { filter: "thread:output" syscalls: 3 unconditional: 1 }
