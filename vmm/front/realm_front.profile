# The front end of one client of `troupe serve`: decodes what that client sends, and passes calls on
# that the interface of realms has. Files and sockets go through it in both directions.
actor: "realm-front"
include: "sandbox/common/actor.profile"

fd { name: "client" number: 5 kind: SOCKET }

run {
  rule { syscall: "recvmsg" fd: "client" arg { index: 2 value: "MSG_CMSG_CLOEXEC" } reason: "what the client sends, with files" }
  rule { syscall: "read" fd: "client" reason: "what the client sends" }
  rule { syscall: "sendmsg" fd: "client" arg { index: 2 value: "0" } reason: "answers with sockets" }
  rule { syscall: "write" syscall: "writev" fd: "client" reason: "answers" }
  rule { syscall: "shutdown" fd: "client" arg { index: 1 value: "SHUT_WR" } reason: "orderly end of the connection" }
}

# Both directions' longest messages, with room for calls under way.
limit { resource: "AS" value: 268435456 }
# As many as two messages and all that a client may hold bring.
limit { resource: "NOFILE" value: 512 }

cgroup {
  memory_max { value: 67108864 optional: "yes" }
  pids_max { value: 4 optional: "yes" }
}

budget { filter: "run" syscalls: 21 unconditional: 8 }
