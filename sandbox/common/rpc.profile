# Cap'n Proto on the actor's one pipe.
fd { name: "rpc" number: 3 kind: SOCKET }

run {
  rule { syscall: "recvmsg" fd: "rpc" arg { index: 2 value: "MSG_CMSG_CLOEXEC" } reason: "messages and the fds that come with them" }
  rule { syscall: "read" fd: "rpc" reason: "messages" }
  rule { syscall: "sendmsg" fd: "rpc" arg { index: 2 value: "0" } reason: "messages with fds" }
  rule { syscall: "write" syscall: "writev" fd: "rpc" reason: "messages" }
  rule { syscall: "shutdown" fd: "rpc" arg { index: 1 value: "SHUT_WR" } reason: "orderly end of the connection" }
  rule { syscall: "close" reason: "fds of capabilities that were dropped" }
}
