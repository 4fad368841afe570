# The entropy device: one queue, no backend but the kernel's generator.
actor: "rng"
include: "devices/virtio/device.profile"
include: "devices/virtio/journal.profile"
include: "devices/virtio/flight.profile"

fd { name: "answers" number: 13 kind: MEMFD closed: true optional: true }
fd { name: "flight" number: 14 kind: MEMFD closed: true optional: true }
fd { name: "journal" number: 15 kind: MEMFD closed: true optional: true }
fd { name: "kick" number: 17 kind: EVENTFD from: PLACED }
fd { name: "call" number: 18 kind: EVENTFD from: PLACED }

ready {
  narrow { syscall: "futex" reason: "there is one thread, and device_main.cc has thrown the first exception" }
}
run {
  rule { syscall: "getrandom" arg { index: 1 at_most: "65536" } arg { index: 2 value: "0" } reason: "random bytes, straight into guest memory" }
  rule { syscall: "write" fd: "call" arg { index: 2 value: "8" } reason: "interrupts" }
}

# One thread and one heap. Guest RAM comes on top.
cgroup {
  memory_max { value: 33554432 optional: "yes" }
  pids_max { value: 4 optional: "yes" }
}

# Its successor finds in its journals what it had in flight.
restart { policy: ALWAYS restarts: 10 seconds: 60 }

budget { filter: "run" syscalls: 12 unconditional: 4 }
