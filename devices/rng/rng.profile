# The entropy device: one queue, no backend but the kernel's generator.
actor: "rng"
include: "devices/virtio/device.profile"

fd { name: "kick" number: 17 kind: EVENTFD from: PLACED }
fd { name: "call" number: 18 kind: EVENTFD from: PLACED }

ready {
  # device_main.cc prepares the process for this.
  narrow { syscall: "mmap" syscall: "munmap" syscall: "mremap" reason: "malloc maps nothing" }
  narrow { syscall: "getpid" syscall: "gettid" syscall: "rt_sigprocmask" syscall: "tgkill" syscall: "rt_sigaction" reason: "abort() ends the process with or without them" }
  narrow { syscall: "futex" reason: "there is one thread" }
  narrow { syscall: "sendmsg" reason: "it gives no fd to anybody" }
}
run {
  rule { syscall: "getrandom" arg { index: 1 at_most: "65536" } arg { index: 2 value: "0" } reason: "random bytes, straight into guest memory" }
  rule { syscall: "write" fd: "call" arg { index: 2 value: "8" } reason: "interrupts" }
}

budget { filter: "run" syscalls: 12 unconditional: 4 }
