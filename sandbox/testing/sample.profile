# The sample actor of the sandbox's own tests.
actor: "sample"
include: "sandbox/common/actor.profile"
include: "sandbox/common/threads.profile"

fd { name: "disk" number: 16 kind: FILE optional: true }
fd { name: "events" number: 18 count: 3 kind: EVENTFD from: PLACED optional: true }

start {
  rule { syscall: "pread64" fd: "disk" fd: "rpc" reason: "a rule that ready does not have" }
}
ready {
  rule { syscall: "sched_yield" reason: "a rule that run does not have" }
}
run {
  rule { syscall: "write" fd: "events" reason: "what a benchmark measures" }
  rule { syscall: "pread64" fd: "disk" reason: "reads" }
}
thread {
  name: "worker"
  include: "sandbox/common/thread.profile"
  rule { syscall: "read" fd: "events" reason: "waits for work" }
}

limit { resource: "AS" value: 268435456 }
