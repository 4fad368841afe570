# Reads one recording for `troupe replay`, tells what is in it, or plays the broker of the device
# that is to do it again. All memory it shares with that device is mapped before the first byte of
# the file is read.
actor: "replayer"
include: "sandbox/common/actor.profile"

fd { name: "device" number: 5 kind: SOCKET }
fd { name: "recording" number: 16 kind: FILE }
fd { name: "flight" number: 18 kind: MEMFD }
fd { name: "answers" number: 19 kind: MEMFD }
fd { name: "ram" number: 20 kind: MEMFD }
fd { name: "ram-reader" number: 21 kind: MEMFD }
fd { name: "kick" number: 32 count: 31 kind: EVENTFD }
fd { name: "call" number: 64 count: 31 kind: EVENTFD }

start {
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ" value: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_SHARED|MAP_NORESERVE" }
    arg { index: 4 fd: "flight" fd: "answers" fd: "ram" }
    reason: "what the device records, what the host answers, the guest's memory"
  }
}

run {
  rule { syscall: "read" fd: "recording" reason: "the recording" }
  rule { syscall: "pwrite64" fd: "answers" reason: "what the host answered, for the device to find" }
  rule { syscall: "write" fd: "kick" arg { index: 2 value: "8" } reason: "tells the device that there is something in a ring" }
  rule { syscall: "recvmsg" fd: "device" arg { index: 2 value: "MSG_CMSG_CLOEXEC" } reason: "the device's answers" }
  rule { syscall: "sendmsg" fd: "device" arg { index: 2 value: "0" } reason: "calls, with memory and eventfds" }
  rule { syscall: "read" fd: "device" reason: "the device's answers" }
  rule { syscall: "write" syscall: "writev" fd: "device" reason: "calls" }
  rule { syscall: "shutdown" fd: "device" arg { index: 1 value: "SHUT_WR" } reason: "orderly end of the connection" }
}

# The largest RAM a guest can have, of which little ever exists, the longest recording three times
# over, and all that a device may record beyond it.
limit { resource: "AS" value: 4471060955136 }
limit { resource: "CPU" value: 3600 }

budget { filter: "run" syscalls: 22 unconditional: 8 }
