# Looks into one disk image, or makes one, for `troupe disk`, and ends. One thread and no event loop. Only the fd of an image that is to be changed is open for writing,
# so nothing else can be.
actor: "disk_tool"
include: "sandbox/common/jail.profile"
include: "sandbox/common/libc.profile"
include: "sandbox/common/malloc.profile"
include: "sandbox/common/setup.profile"
include: "sandbox/common/log.profile"
include: "sandbox/common/exit.profile"

fd { name: "report" number: 3 kind: SOCKET }
fd { name: "disk" number: 17 kind: FILE }
fd { name: "backing" number: 20 count: 8 kind: FILE optional: true }

start {
  rule { syscall: "fcntl" fd: "setup" arg { index: 1 value: "F_GETFD" } reason: "ActorSetup: whether it is there" }
  rule { syscall: "fcntl" fd: "report" arg { index: 1 value: "F_GETFD" } reason: "ActorSetup: the size of the table" }
  rule { syscall: "fcntl" fd: "disk" fd: "backing" arg { index: 1 value: "F_GETFD" value: "F_GETFL" } reason: "ActorSetup; whether it is open for writing" }
  rule { syscall: "newfstatat" fd: "disk" fd: "backing" reason: "file or block device, and its size" }
  rule { syscall: "fstat" fd: "disk" fd: "backing" reason: "file or block device, and its size" }
  rule { syscall: "fstatfs" fd: "disk" fd: "backing" reason: "whether it lies in memory" }
  rule {
    syscall: "ioctl"
    fd: "disk"
    fd: "backing"
    arg { index: 1 value: "BLKGETSIZE64" value: "BLKPBSZGET" value: "BLKIOMIN" value: "BLKIOOPT" value: "BLKALIGNOFF" }
    reason: "size and topology of a block device"
  }
}

run {
  rule { syscall: "preadv2" fd: "disk" fd: "backing" reason: "headers, tables" }
  rule { syscall: "pwritev2" fd: "disk" reason: "a new image, a larger one, counts of leaks" }
  rule { syscall: "fdatasync" fd: "disk" reason: "the order of what was written" }
  rule { syscall: "ftruncate" fd: "disk" reason: "the file of a new image" }
  rule {
    syscall: "fallocate"
    fd: "disk"
    arg { index: 1 value: "FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE" }
    reason: "space that a larger image gives back"
  }
  rule { syscall: "write" syscall: "writev" fd: "report" reason: "progress, and the result" }
  rule { syscall: "read" fd: "report" arg { index: 2 value: "1" } reason: "the word to go on after a report of progress" }
  rule { syscall: "futex" arg { index: 1 value: "FUTEX_WAKE_PRIVATE" } reason: "once-flags" }
}

# A check holds 150 MiB at most, the repair of an image that was not closed 500 MiB. A check takes a
# second for 16 TiB; who needs longer than this was given an image that is an attack.
limit { resource: "AS" value: 1073741824 }
limit { resource: "CPU" value: 600 }

budget { filter: "run" syscalls: 19 unconditional: 6 }
