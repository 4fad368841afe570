# The compiler of the profiles of --profile-dir: parses text that somebody wrote, tells `troupe` what
# came of it, and ends. It has one stage, because it is at work from its start on.
actor: "compiler"
include: "sandbox/common/jail.profile"
include: "sandbox/common/libc.profile"
include: "sandbox/common/malloc.profile"
include: "sandbox/common/setup.profile"
include: "sandbox/common/log.profile"
include: "sandbox/common/exit.profile"

fd { name: "result" number: 16 kind: PIPE }

start {
  rule { syscall: "fcntl" fd: "setup" arg { index: 1 value: "F_GETFD" } reason: "ActorSetup: whether it is there" }
  rule { syscall: "fcntl" fd: "result" arg { index: 1 value: "F_GETFD" } reason: "ActorSetup: the size of the table" }
  rule { syscall: "write" syscall: "writev" fd: "result" reason: "the answer" }
  rule { syscall: "futex" arg { index: 1 value: "FUTEX_WAKE_PRIVATE" } reason: "once-flags of protobuf" }
}

# A profile that takes longer or more than this is an attack on whoever compiles it.
limit { resource: "CPU" value: 20 }
limit { resource: "AS" value: 536870912 }
