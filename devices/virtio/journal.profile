# The journals of a device that is replaced when it dies (device_main.cc): mapped at its start, and the
# fd is closed. The profile that includes this includes attach.profile too, and has the fd "journal" at a
# number of its own.
start {
  rule { syscall: "lseek" fd: "journal" arg { index: 2 value: "SEEK_END" } reason: "the size of the journals" }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_SHARED" }
    arg { index: 4 fd: "journal" }
    reason: "where its successor finds what it had in flight"
  }
}
