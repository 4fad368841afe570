# The memory sample without any of guest RAM, like the serial port's process and the front end.
actor: "sample_none"
include: "sandbox/common/actor.profile"

fd { name: "kick" number: 17 kind: EVENTFD from: PLACED }
fd { name: "call" number: 18 kind: EVENTFD from: PLACED }

memory { access: NONE }

ready {
  narrow { syscall: "mmap" syscall: "munmap" syscall: "mremap" reason: "malloc has one heap and maps nothing" }
}
