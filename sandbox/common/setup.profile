# ActorSetup (sandbox/actor_setup.h).
fd { name: "setup" number: 4 kind: PIPE closed: true }

start {
  rule { syscall: "prctl" arg { index: 0 value: "PR_SET_MDWE" } arg { index: 1 value: "PR_MDWE_REFUSE_EXEC_GAIN" } reason: "no memory becomes executable from here on" }
  rule { syscall: "read" fd: "setup" reason: "the setup message" }
  rule { syscall: "dup3" arg { index: 2 value: "O_CLOEXEC" } reason: "puts fds at their numbers" }
  rule { syscall: "close" reason: "the setup, and fds that were put elsewhere" }
}
