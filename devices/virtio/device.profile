# What every virtio device does, but for those that list more narrowly what they need of libc. An
# actor's profile adds its own "kick" and "call", one number of each per queue.
include: "sandbox/common/actor.profile"
include: "devices/virtio/attach.profile"

fd { name: "ram" number: 16 kind: MEMFD from: PLACED closed: true }

# device_main.cc prepares the process for serving without these.
ready {
  narrow { syscall: "mmap" syscall: "munmap" syscall: "mremap" reason: "malloc has one heap and maps nothing" }
  narrow { syscall: "getpid" syscall: "gettid" syscall: "rt_sigprocmask" syscall: "tgkill" syscall: "rt_sigaction" reason: "abort() ends the process with or without them" }
  narrow { syscall: "sendmsg" reason: "a device gives no fd to anybody" }
}
