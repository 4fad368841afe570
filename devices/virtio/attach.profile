# attach() of every virtio device (device_actor.cc, ram_mapping.cc): maps guest RAM. The profile that
# includes this has the fd "ram", at a number of its own.
include: "sandbox/common/jail.profile"

memory { access: ALL fd: "ram" }

start {
  rule { syscall: "fcntl" fd: "ram" arg { index: 1 value: "F_GET_SEALS" } reason: "only sealed memory is mapped" }
  rule { syscall: "lseek" fd: "ram" arg { index: 2 value: "SEEK_END" } reason: "the size of guest RAM" }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_SHARED" }
    arg { index: 4 fd: "ram" }
    reason: "guest RAM"
  }
  rule { syscall: "madvise" arg { index: 2 value: "MADV_DONTDUMP" } reason: "guest RAM is in no core dump" }
}
