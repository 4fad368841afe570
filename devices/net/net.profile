# The network device: one backend, up to 15 queue pairs with a thread each.
#
# The main thread speaks with the broker and serves the control queue; the pairs' threads move frames.
# Their filter names readv, writev, read and write without conditions: the kernel then answers from a table
# without running the filter, and whoever has the process has its one backend and its pipe to the broker anyway.
actor: "net"
include: "devices/virtio/device.profile"
include: "devices/virtio/journal.profile"
include: "devices/virtio/flight.profile"
include: "sandbox/common/threads.profile"

fd { name: "answers" number: 13 kind: MEMFD closed: true optional: true }
fd { name: "flight" number: 14 kind: MEMFD closed: true optional: true }
fd { name: "journal" number: 15 kind: MEMFD closed: true optional: true }
fd { name: "events" number: 17 kind: EVENTFD from: PLACED }
fd { name: "pcap" number: 18 kind: FILE optional: true }
fd { name: "socket" number: 20 count: 4 kind: SOCKET optional: true }
fd { name: "tap" number: 32 count: 15 kind: CHARACTER_DEVICE optional: true }
fd { name: "wake" number: 48 count: 15 kind: EVENTFD from: PLACED optional: true }
fd { name: "kick" number: 64 count: 31 kind: EVENTFD from: PLACED optional: true }
fd { name: "call" number: 96 count: 31 kind: EVENTFD from: PLACED optional: true }

start {
  rule { syscall: "ioctl" fd: "tap" arg { index: 1 value: "TUNGETIFF" value: "TUNGETVNETHDRSZ" } reason: "whether it is a tap whose frames have headers" }
  rule { syscall: "getsockopt" fd: "socket" arg { index: 1 value: "SOL_SOCKET" } arg { index: 2 value: "SO_TYPE" } reason: "whether it keeps messages apart" }
  rule { syscall: "exit" reason: "a pair's thread that could not begin; main() then says why" }
}

ready {
  narrow { syscall: "mprotect" syscall: "madvise" reason: "one heap for all threads, and they live as long as the process" }
}
run {
  rule { syscall: "lseek" fd: "pcap" arg { index: 2 value: "SEEK_END" } reason: "how much a process before this one has captured, once that has ended" }
  rule { syscall: "ftruncate" fd: "pcap" reason: "half a frame that it has left" }
  rule { syscall: "read" fd: "events" reason: "a pair came to rest, its ring is broken, its backend is gone" }
  rule { syscall: "write" fd: "wake" fd: "call" reason: "a pair is to start or to stop; interrupts of the control queue" }
  rule {
    syscall: "ioctl"
    fd: "tap"
    arg { index: 1 value: "TUNSETOFFLOAD" }
    arg { index: 2 flags: "TUN_F_CSUM|TUN_F_TSO4|TUN_F_TSO6|TUN_F_TSO_ECN|TUN_F_UFO|TUN_F_USO4|TUN_F_USO6" }
    reason: "which segments and checksums the driver takes off the host's hands"
  }
  rule { syscall: "ioctl" fd: "tap" arg { index: 1 value: "TUNSETQUEUE" } reason: "queue pairs the driver begins and ceases to use" }
}

thread {
  name: "queue"
  include: "sandbox/common/thread.profile"
  include: "sandbox/common/log.profile"
  narrow { syscall: "mmap" syscall: "munmap" syscall: "mprotect" syscall: "madvise" reason: "malloc has one heap and maps nothing" }
  narrow { syscall: "exit" syscall: "rt_sigprocmask" reason: "it lives as long as the process" }
  narrow { syscall: "clock_gettime" arg { index: 0 value: "CLOCK_MONOTONIC" } reason: "how long to spin; rates; when a frame was captured" }
  narrow { syscall: "getpid" syscall: "gettid" syscall: "tgkill" reason: "abort() ends the process with or without them" }
  rule { syscall: "readv" reason: "frames to the guest, straight into its memory" }
  rule { syscall: "writev" reason: "frames of the guest, straight out of its memory; captured frames" }
  rule { syscall: "ppoll" arg { index: 1 at_most: "4" } arg { index: 3 value: "0" } reason: "sleeps until there is work, changing no signal mask" }
  rule { syscall: "read" reason: "frames to the guest in one piece; notifications of the driver, wake-ups" }
  rule { syscall: "write" reason: "frames of the guest in one piece; interrupts; reports to the main thread" }
}

# Some 300 KiB of buffers for a pair, and the host's page cache of what is captured, which gives way
# when it comes to this. Guest RAM comes on top.
cgroup {
  memory_max { value: 268435456 optional: "yes" }
  pids_max { value: 24 optional: "yes" }
}

# Its successor finds in its journals what it had in flight, and behind them what the driver said.
restart { policy: ALWAYS restarts: 10 seconds: 60 }

budget { filter: "run" syscalls: 15 unconditional: 4 }
budget { filter: "thread:queue" syscalls: 9 unconditional: 6 }
