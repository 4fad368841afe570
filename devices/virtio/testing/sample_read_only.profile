# The memory sample with an fd of guest RAM through which it cannot be written. Its filter allows
# what the others' refuse, so that a test sees the kernel refuse it for the fd's sake.
actor: "sample_read_only"
include: "sandbox/common/actor.profile"

fd { name: "ram" number: 16 kind: MEMFD from: PLACED closed: true }
fd { name: "kick" number: 17 kind: EVENTFD from: PLACED }
fd { name: "call" number: 18 kind: EVENTFD from: PLACED }

memory { access: READ_ONLY fd: "ram" }

start {
  rule { syscall: "fcntl" fd: "ram" arg { index: 1 value: "F_GET_SEALS" } reason: "only sealed memory is mapped" }
  rule { syscall: "lseek" fd: "ram" arg { index: 2 value: "SEEK_END" } reason: "the size of guest RAM" }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ" value: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_SHARED" }
    arg { index: 4 fd: "ram" }
    reason: "guest RAM; writable, if the kernel lets it"
  }
  rule { syscall: "madvise" arg { index: 2 value: "MADV_DONTDUMP" } reason: "guest RAM is in no core dump" }
}
run {
  rule { syscall: "mprotect" arg { index: 2 value: "PROT_READ|PROT_WRITE" } reason: "tried by the test" }
}
