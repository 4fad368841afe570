# The block device: one disk, up to 16 queues with a thread each.
#
# The main thread speaks with the broker and never touches the disk; the queue threads touch the disk
# and the queues' eventfds, and nothing else. Their filter names preadv2, pwritev2 and io_uring_enter
# without conditions: the kernel then answers from a table without running the filter, and a process
# that holds no other file gains nothing from a check. (Backing files of an image are open for
# reading only.)
actor: "blk"
include: "devices/virtio/device.profile"
include: "devices/virtio/journal.profile"
include: "devices/virtio/flight.profile"
include: "sandbox/common/threads.profile"

fd { name: "answers" number: 13 kind: MEMFD closed: true optional: true }
fd { name: "flight" number: 14 kind: MEMFD closed: true optional: true }
fd { name: "journal" number: 15 kind: MEMFD closed: true optional: true }
fd { name: "disk" number: 17 kind: FILE }
fd { name: "backing" number: 20 count: 8 kind: FILE optional: true }
fd { name: "overlay" number: 19 kind: MEMFD optional: true }
fd { name: "kept" number: 29 kind: MEMFD optional: true }
fd { name: "events" number: 18 kind: EVENTFD from: PLACED }
fd { name: "wake" number: 32 count: 16 kind: EVENTFD from: PLACED optional: true }
fd { name: "kick" number: 48 count: 16 kind: EVENTFD from: PLACED optional: true }
fd { name: "call" number: 64 count: 16 kind: EVENTFD from: PLACED optional: true }
fd { name: "witness" number: 126 kind: PIPE optional: true }    # held by the process and by its rings, never used
fd { name: "before" number: 127 kind: PIPE optional: true }     # the other end of that of the process before

# What disk_ring.cc asks of the ring in each queue thread.
io_uring {
  opcode: [ "READV", "WRITEV", "FSYNC", "FALLOCATE" ]
  sqe_flag: "FIXED_FILE"
  reason: "requests that have to wait; of the disk, the ring's one registered file"
}

start {
  rule { syscall: "newfstatat" fd: "disk" fd: "backing" fd: "overlay" reason: "file or block device, and its size; memory in use" }
  rule { syscall: "fstat" fd: "disk" fd: "backing" fd: "overlay" reason: "file or block device, and its size; memory in use" }
  rule { syscall: "fstatfs" fd: "disk" fd: "backing" reason: "whether it lies in memory" }
  rule { syscall: "statx" fd: "disk" reason: "alignment for O_DIRECT" }
  rule { syscall: "pread64" fd: "disk" reason: "alignment for O_DIRECT, where statx does not tell" }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_SHARED" }
    arg { index: 4 fd: "kept" }
    reason: "mappings of an image, or bits of a volatile disk, for the process after this one"
  }
  rule { syscall: "ioctl" fd: "disk" fd: "backing" arg { index: 1 value: "BLKGETSIZE64" } reason: "size of a block device" }
  rule {
    syscall: "ioctl"
    fd: "disk"
    fd: "backing"
    arg { index: 1 value: "BLKPBSZGET" value: "BLKIOMIN" value: "BLKIOOPT" value: "BLKALIGNOFF" }
    reason: "topology of a block device"
  }
  rule { syscall: "io_uring_setup" reason: "a ring for each queue thread" }
  rule { syscall: "io_uring_register" reason: "the ring's only file, its restrictions" }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_SHARED|MAP_POPULATE" }
    reason: "the ring's queues"
  }
  rule { syscall: "exit" reason: "a queue thread that could not begin; main() then says why" }
}

ready {
  narrow { syscall: "mprotect" syscall: "madvise" reason: "one heap for all threads, and they live as long as the process" }
  narrow { syscall: "close" arg { index: 0 at_most: "125" } reason: "the witness stays open as long as the process lives: its successor trusts that" }
}
run {
  rule { syscall: "read" fd: "before" reason: "whether the process before has ended" }
  rule { syscall: "read" fd: "events" reason: "a queue came to rest or is broken" }
  rule { syscall: "write" fd: "wake" reason: "a queue is to start or to stop" }
}

thread {
  name: "queue"
  include: "sandbox/common/thread.profile"
  include: "sandbox/common/log.profile"
  narrow { syscall: "mmap" syscall: "munmap" syscall: "mprotect" syscall: "madvise" reason: "malloc has one heap and maps nothing" }
  narrow { syscall: "exit" syscall: "rt_sigprocmask" reason: "it lives as long as the process" }
  narrow { syscall: "clock_gettime" arg { index: 0 value: "CLOCK_MONOTONIC" } reason: "how long to spin" }
  narrow { syscall: "getpid" syscall: "gettid" syscall: "tgkill" reason: "abort() ends the process with or without them" }
  rule { syscall: "preadv2" reason: "reads that need not wait" }
  rule { syscall: "pwritev2" reason: "writes that need not wait" }
  rule {
    syscall: "lseek"
    fd: "disk"
    fd: "overlay"
    fd: "kept"
    arg { index: 2 value: "SEEK_END" value: "SEEK_DATA" value: "SEEK_HOLE" }
    reason: "what the process before has left, once that has ended: its size, and where there is something in it"
  }
  rule { syscall: "fdatasync" fd: "disk" reason: "flushes of a disk in memory" }
  rule {
    syscall: "fallocate"
    fd: "disk"
    fd: "overlay"
    arg { index: 1 value: "FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE" value: "FALLOC_FL_KEEP_SIZE|FALLOC_FL_ZERO_RANGE" }
    reason: "discards and zeroes of a disk in memory; space that an image or a volatile disk gives back"
  }
  rule { syscall: "ftruncate" fd: "disk" reason: "an image grows by whole clusters" }
  rule { syscall: "io_uring_enter" reason: "everything else, within the ring's restrictions" }
  rule { syscall: "ppoll" arg { index: 1 at_most: "2" } arg { index: 3 value: "0" } reason: "sleeps until there is work, changing no signal mask" }
  rule { syscall: "read" fd: "kick" fd: "wake" reason: "notifications of the driver, wake-ups" }
  rule { syscall: "write" fd: "call" fd: "events" reason: "interrupts; reports to the main thread" }
}

# The host's page cache of the disk counts, and gives way when it comes to this; buffers, rings and
# 16 threads with 5 of io_uring's each take some 20 MiB. Guest RAM comes on top, and a disk in a tmpfs.
cgroup {
  memory_max { value: 1073741824 optional: "yes" }
  pids_max { value: 160 optional: "yes" }
}

# Its successor finds in its journals what it had in flight.
restart { policy: ALWAYS restarts: 10 seconds: 60 }

budget { filter: "run" syscalls: 12 unconditional: 3 }
budget { filter: "thread:queue" syscalls: 15 unconditional: 5 }
