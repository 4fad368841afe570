# The flight recorder's memory (device_main.cc), handed over with --record alone: mapped at the start,
# and the fd is closed. Recording adds no system call. The profile that includes this includes
# attach.profile too, and has the fds "flight" and "answers" at numbers of its own; the second is handed
# over by `troupe replay` alone.
start {
  rule { syscall: "lseek" fd: "flight" fd: "answers" arg { index: 2 value: "SEEK_END" } reason: "the size of a recording" }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_SHARED" }
    arg { index: 4 fd: "flight" }
    reason: "where what it sees is recorded"
  }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ" }
    arg { index: 3 value: "MAP_SHARED" }
    arg { index: 4 fd: "answers" }
    reason: "what the host of a recording answered"
  }
}
