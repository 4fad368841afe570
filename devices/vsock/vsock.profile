# The socket device: three queues, and a socket of the host for each stream of the guest.
#
# Every number below "stream" is in use while it serves, so that accept() and the connector's answers
# come to be at a number of "stream": the lowest that is free.
#
# Bytes of the host's programs go through preadv2 and pwritev2 alone, by which no fd can be given or
# taken. A taken-over device can thus hand nothing it holds to those it is connected with.
actor: "vsock"
include: "sandbox/common/actor.profile"
include: "devices/virtio/attach.profile"
include: "devices/virtio/journal.profile"
include: "devices/virtio/flight.profile"

fd { name: "kick" number: 5 count: 3 kind: EVENTFD from: PLACED }
fd { name: "call" number: 8 count: 3 kind: EVENTFD from: PLACED }
fd { name: "connector" number: 11 kind: SOCKET }
fd { name: "stream" number: 12 count: 3892 kind: SOCKET from: PLACED optional: true }
fd { name: "listen" number: 3904 kind: SOCKET optional: true }
fd { name: "forward" number: 3905 count: 63 kind: SOCKET optional: true }
fd { name: "ram" number: 3968 kind: MEMFD from: PLACED closed: true }
fd { name: "journal" number: 3969 kind: MEMFD closed: true optional: true }
fd { name: "flight" number: 3970 kind: MEMFD closed: true optional: true }
fd { name: "answers" number: 3971 kind: MEMFD closed: true optional: true }

ready {
  narrow { syscall: "mmap" syscall: "munmap" syscall: "mremap" reason: "malloc has one heap and maps nothing" }
  narrow { syscall: "getpid" syscall: "gettid" syscall: "rt_sigprocmask" syscall: "tgkill" syscall: "rt_sigaction" reason: "abort() ends the process with or without them" }
  narrow { syscall: "sendmsg" reason: "it gives no fd to anybody" }
  narrow { syscall: "futex" reason: "there is one thread, and device_main.cc has thrown the first exception" }
}
run {
  rule { syscall: "write" fd: "call" arg { index: 2 value: "8" } reason: "interrupts" }
  rule { syscall: "accept4" fd: "listen" fd: "forward" arg { index: 3 value: "SOCK_NONBLOCK|SOCK_CLOEXEC" } reason: "clients connect" }
  rule { syscall: "preadv2" fd: "stream" arg { index: 5 value: "RWF_NOWAIT" value: "0" } reason: "what they send, into guest memory; 0 where sockets have no RWF_NOWAIT, as in Linux 6.1" }
  rule { syscall: "pwritev2" fd: "stream" arg { index: 5 value: "RWF_NOWAIT" value: "0" } reason: "what the guest sends" }
  rule { syscall: "shutdown" fd: "stream" arg { index: 1 value: "SHUT_RD" value: "SHUT_WR" } reason: "half close" }
  rule { syscall: "setsockopt" fd: "stream" arg { index: 1 value: "SOL_SOCKET" } arg { index: 2 value: "SO_SNDBUF" } reason: "many streams get small buffers" }
  rule { syscall: "fcntl" fd: "stream" arg { index: 1 value: "F_DUPFD_CLOEXEC" } reason: "keeps a socket that the connector gave" }
  rule { syscall: "write" syscall: "writev" fd: "connector" reason: "asks the connector" }
  rule { syscall: "recvmsg" fd: "connector" arg { index: 2 value: "MSG_CMSG_CLOEXEC" } reason: "its answers, with a socket" }
  rule { syscall: "read" fd: "connector" reason: "its answers" }
  rule { syscall: "shutdown" fd: "connector" arg { index: 1 value: "SHUT_WR" } reason: "the end of one that talks nonsense" }
}

# Below 4096, the hard limit of a process that nobody has given more. What comes by RPC is at a
# number of "stream" before it is put elsewhere, so that no more are needed.
limit { resource: "NOFILE" value: 4080 }

# Streams at their most, all of them against readers that do not read: 64 times 256 KiB here and 208
# KiB in the kernel, 3776 times 16 KiB here and 50 KiB there. Guest RAM comes on top.
cgroup {
  memory_max { value: 335544320 optional: "yes" }
  pids_max { value: 4 optional: "yes" }
}

# Its successor tells the driver that all streams have ended.
restart { policy: ALWAYS restarts: 10 seconds: 60 }

budget { filter: "run" syscalls: 16 unconditional: 4 }
