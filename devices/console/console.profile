# The virtio console. Its event loop holds the rings, the pipe to the broker and sockets; standard
# streams and files, which may block, have a thread each.
#
# Not devices/virtio/device.profile, which would bring all of malloc's and abort()'s system calls into
# `run`.
#
# Every number below "client" is in use from the beginning, so that accept() makes each connection at
# a number of "client": the lowest that is free. There is one more of them than there can be clients,
# for the one that is told so.
#
# Queues 0 and 1 are those of port 0, 2 and 3 the control queues, then come two for each further port.
actor: "console"
include: "sandbox/common/jail.profile"
include: "sandbox/common/libc.profile"
include: "sandbox/common/setup.profile"
include: "sandbox/common/log.profile"
include: "sandbox/common/event_loop.profile"
include: "sandbox/common/rpc.profile"
include: "devices/virtio/attach.profile"
include: "devices/virtio/journal.profile"
include: "devices/virtio/flight.profile"
include: "devices/console/backend.profile"

fd { name: "client" number: 5 count: 129 kind: SOCKET from: PLACED optional: true }
fd { name: "kick" number: 134 count: 18 kind: EVENTFD from: PLACED optional: true }
fd { name: "call" number: 152 count: 18 kind: EVENTFD from: PLACED optional: true }
fd { name: "listen" number: 170 count: 8 kind: SOCKET optional: true }
fd { name: "out" number: 178 count: 8 kind: ANY optional: true }
fd { name: "pty" number: 186 count: 8 kind: TERMINAL optional: true }
fd { name: "in" number: 194 kind: ANY optional: true }
fd { name: "ram" number: 195 kind: MEMFD from: PLACED closed: true }
fd { name: "journal" number: 196 kind: MEMFD closed: true optional: true }
fd { name: "answers" number: 198 kind: MEMFD closed: true optional: true }
fd { name: "flight" number: 199 kind: MEMFD closed: true optional: true }

ready {
  narrow { syscall: "sendmsg" reason: "it gives no fd to anybody" }
}
run {
  rule { syscall: "read" fd: "kick" reason: "the driver's notifications" }
  rule { syscall: "write" fd: "call" reason: "interrupts" }
}

# For each of eight ports a MiB kept for readers, sixteen readers, a thread that writes; one thread
# that reads; and the host's page cache of what is written to files. Guest RAM comes on top.
cgroup {
  memory_max { value: 268435456 optional: "yes" }
  pids_max { value: 16 optional: "yes" }
}

# Its successor finds in its journals what it had in flight, and what each port has said and heard.
restart { policy: ALWAYS restarts: 10 seconds: 60 }

budget { filter: "run" syscalls: 13 unconditional: 4 }
budget { filter: "thread:input" syscalls: 4 unconditional: 1 }
budget { filter: "thread:output" syscalls: 3 unconditional: 1 }
