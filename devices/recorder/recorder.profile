# Carries what one device records from memory to a file (--record). One thread and no event loop; it
# maps nothing of anybody's, and meets no message: what it carries is bytes.
actor: "recorder"
include: "sandbox/common/jail.profile"
include: "sandbox/common/libc.profile"
include: "sandbox/common/malloc.profile"
include: "sandbox/common/setup.profile"
include: "sandbox/common/log.profile"
include: "sandbox/common/exit.profile"

fd { name: "control" number: 3 kind: SOCKET }
fd { name: "recording" number: 16 kind: MEMFD }
fd { name: "file" number: 17 kind: FILE }

start {
  rule { syscall: "fcntl" fd: "setup" arg { index: 1 value: "F_GETFD" } reason: "ActorSetup: whether it is there" }
  rule { syscall: "fcntl" fd: "control" fd: "recording" fd: "file" arg { index: 1 value: "F_GETFD" } reason: "ActorSetup: the size of the table" }
  rule { syscall: "lseek" fd: "recording" arg { index: 2 value: "SEEK_END" } reason: "the limit of the recording" }
}

run {
  rule { syscall: "pread64" fd: "recording" reason: "what the device has recorded" }
  rule { syscall: "pwrite64" fd: "recording" arg { index: 2 value: "4" } reason: "tells the device that nobody carries any more" }
  rule {
    syscall: "fallocate"
    fd: "recording"
    arg { index: 1 value: "FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE" }
    reason: "gives memory back"
  }
  rule { syscall: "write" fd: "file" reason: "the recording" }
  rule { syscall: "ppoll" arg { index: 1 value: "1" } arg { index: 3 value: "0" } reason: "waits for more, or for the end of the VM" }
  rule { syscall: "futex" arg { index: 1 value: "FUTEX_WAKE_PRIVATE" } reason: "once-flags" }
}

# The host's page cache of the file counts, and gives way when it comes to this.
cgroup {
  memory_max { value: 67108864 optional: "yes" }
  pids_max { value: 4 optional: "yes" }
}

budget { filter: "run" syscalls: 17 unconditional: 6 }
