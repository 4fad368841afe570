# The memory balloon: five queues, no backend. It reads guest memory, through an fd that was opened
# for reading alone, and writes none of it: what it returns to the driver is stored by the broker,
# which also gives pages back to the host when it is asked to.
actor: "balloon"
include: "sandbox/common/actor.profile"
include: "devices/virtio/journal.profile"
include: "devices/virtio/flight.profile"

fd { name: "answers" number: 13 kind: MEMFD closed: true optional: true }
fd { name: "flight" number: 14 kind: MEMFD closed: true optional: true }
fd { name: "journal" number: 15 kind: MEMFD closed: true optional: true }
fd { name: "ram" number: 16 kind: MEMFD from: PLACED closed: true }
fd { name: "kick" number: 17 count: 5 kind: EVENTFD from: PLACED }
fd { name: "call" number: 22 count: 5 kind: EVENTFD from: PLACED }

memory { access: READ_ONLY fd: "ram" }

start {
  rule { syscall: "fcntl" fd: "ram" arg { index: 1 value: "F_GET_SEALS" } reason: "only sealed memory is mapped" }
  rule { syscall: "lseek" fd: "ram" arg { index: 2 value: "SEEK_END" } reason: "the size of guest RAM" }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ" }
    arg { index: 3 value: "MAP_SHARED" }
    arg { index: 4 fd: "ram" }
    reason: "guest RAM, for reading"
  }
  rule { syscall: "madvise" arg { index: 2 value: "MADV_DONTDUMP" } reason: "guest RAM is in no core dump" }
}

# device_main.cc prepares the process for serving without these.
ready {
  narrow { syscall: "mmap" syscall: "munmap" syscall: "mremap" reason: "malloc has one heap and maps nothing" }
  narrow { syscall: "getpid" syscall: "gettid" syscall: "rt_sigprocmask" syscall: "tgkill" syscall: "rt_sigaction" reason: "abort() ends the process with or without them" }
  narrow { syscall: "sendmsg" reason: "a device gives no fd to anybody" }
  narrow { syscall: "futex" reason: "there is one thread, and device_main.cc has thrown the first exception" }
}
run {
  rule { syscall: "write" fd: "call" arg { index: 2 value: "8" } reason: "interrupts" }
}

# One thread and one heap. Guest RAM comes on top.
cgroup {
  memory_max { value: 33554432 optional: "yes" }
  pids_max { value: 4 optional: "yes" }
}

# Its successor finds in its journals what it had in flight, and asks the broker what was returned.
restart { policy: ALWAYS restarts: 10 seconds: 60 }

budget { filter: "run" syscalls: 11 unconditional: 4 }
