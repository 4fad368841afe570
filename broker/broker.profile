# troupe-broker: one VM. It holds KVM and all of guest RAM, and may start no process, open no path and
# make no socket at any time.
actor: "broker"
include: "sandbox/common/actor.profile"
include: "sandbox/common/threads.profile"

fd { name: "kvm" number: 16 kind: KVM closed: true }
fd { name: "serial" number: 17 kind: SOCKET optional: true }
fd { name: "vm" number: 18 kind: KVM_VM from: PLACED }
fd { name: "ram" number: 19 kind: MEMFD }
fd { name: "mailbox" number: 20 kind: EVENTFD from: PLACED }
fd { name: "kernel" number: 21 kind: FILE from: PLACED optional: true }    # open while they are loaded, at each boot
fd { name: "initrd" number: 22 kind: FILE from: PLACED optional: true }
fd { name: "ram_readonly" number: 23 kind: MEMFD }    # the same, for devices that may not write it
fd { name: "dtb" number: 24 kind: FILE from: PLACED optional: true }       # a device tree, like them
fd { name: "device" number: 32 count: 31 kind: SOCKET from: PLACED optional: true }     # one a PCI slot
fd { name: "successor" number: 64 count: 31 kind: SOCKET from: PLACED optional: true }  # the same, while another process is to take its place
fd { name: "host_memory" number: 96 count: 8 kind: ANY optional: true closed: true }    # what the guest is to have of the host's: mapped for KVM
fd { name: "vcpu" number: 256 count: 255 kind: KVM_VCPU from: PLACED optional: true }
fd { name: "kick" number: 1024 count: 961 kind: EVENTFD from: PLACED optional: true }   # 31 a PCI slot
fd { name: "call" number: 2048 count: 961 kind: EVENTFD from: PLACED optional: true }

memory { access: ALL fd: "ram" }

# The table and a little air: eventfds are put in their place one by one. Many a login allows no more
# than 4096.
limit { resource: "NOFILE" value: 3072 }

start {
  rule {
    syscall: "ioctl" fd: "kvm"
    arg { index: 1 value: "KVM_GET_API_VERSION" value: "KVM_CHECK_EXTENSION" value: "KVM_GET_VCPU_MMAP_SIZE" value: "KVM_GET_SUPPORTED_CPUID" value: "KVM_GET_MSR_INDEX_LIST" value: "KVM_CREATE_VM" }
    reason: "what the host offers, and the VM"
  }
  rule {
    syscall: "ioctl" fd: "vm"
    arg { index: 1 value: "KVM_SET_USER_MEMORY_REGION" value: "KVM_SET_IDENTITY_MAP_ADDR" value: "KVM_SET_TSS_ADDR" value: "KVM_CREATE_IRQCHIP" value: "KVM_GET_IRQCHIP" value: "KVM_CREATE_VCPU" }
    reason: "the parts of the VM"
  }
  rule {
    syscall: "ioctl" fd: "vcpu"
    arg { index: 1 value: "KVM_GET_TSC_KHZ" value: "KVM_SET_CPUID2" value: "KVM_GET_LAPIC" value: "KVM_GET_REGS" value: "KVM_GET_MP_STATE" value: "KVM_GET_VCPU_EVENTS" value: "KVM_GET_DEBUGREGS" value: "KVM_GET_XCRS" value: "KVM_GET_XSAVE" }
    reason: "vCPUs before their first instruction, and what a reset puts back"
  }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_SHARED" }
    arg { index: 4 fd: "vcpu" }
    reason: "what KVM and a vCPU's thread tell each other"
  }
  rule { syscall: "fcntl" fd: "ram" arg { index: 1 value: "F_GET_SEALS" } reason: "guest RAM keeps its size" }
  rule { syscall: "lseek" fd: "ram" arg { index: 2 value: "SEEK_END" } reason: "the size of guest RAM" }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_SHARED|MAP_NORESERVE" }
    arg { index: 4 fd: "ram" }
    reason: "guest RAM"
  }
  rule {
    syscall: "mmap"
    arg { index: 2 value: "PROT_READ|PROT_WRITE" }
    arg { index: 3 value: "MAP_SHARED" }
    arg { index: 4 fd: "host_memory" }
    reason: "memory of the host's, as it was permitted"
  }
  rule { syscall: "madvise" arg { index: 2 value: "MADV_DONTDUMP" } reason: "guest RAM and the host's memory are in no core dump" }
}

run {
  rule {
    syscall: "ioctl" fd: "vm"
    arg { index: 1 value: "KVM_IRQ_LINE" value: "KVM_SIGNAL_MSI" value: "KVM_SET_GSI_ROUTING" value: "KVM_IRQFD" value: "KVM_IOEVENTFD" value: "KVM_SET_IRQCHIP" }
    reason: "interrupts and notifications, as drivers set them up and take them down; a reset"
  }
  rule { syscall: "fallocate" fd: "ram" arg { index: 1 value: "FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE" } reason: "pages of the guest that a balloon gives back to the host; all of them, when it starts anew" }
  rule {
    syscall: "ioctl" fd: "vcpu"
    arg { index: 1 value: "KVM_GET_MSRS" value: "KVM_SET_MSRS" value: "KVM_SET_LAPIC" value: "KVM_GET_SREGS" value: "KVM_SET_SREGS" value: "KVM_SET_REGS" value: "KVM_SET_MP_STATE" value: "KVM_SET_VCPU_EVENTS" value: "KVM_SET_DEBUGREGS" value: "KVM_SET_XCRS" value: "KVM_SET_XSAVE" value: "KVM_KVMCLOCK_CTRL" }
    reason: "vCPUs are reset when the guest starts anew; its watchdog learns of a pause"
  }
  rule { syscall: "dup3" arg { index: 1 fd: "kernel" fd: "initrd" fd: "dtb" } arg { index: 2 value: "O_CLOEXEC" } reason: "kernel, initrd and device tree, handed anew at each boot, take their places" }
  rule { syscall: "newfstatat" fd: "kernel" fd: "initrd" fd: "dtb" arg { index: 3 value: "AT_EMPTY_PATH" } reason: "what the files are, and their sizes" }
  rule { syscall: "pread64" fd: "kernel" fd: "initrd" fd: "dtb" reason: "kernel, initrd and device tree go into guest RAM" }
  rule { syscall: "read" syscall: "write" fd: "mailbox" reason: "work for the main loop from vCPU threads" }
  rule { syscall: "sendto" fd: "serial" arg { index: 3 value: "MSG_DONTWAIT|MSG_NOSIGNAL" } reason: "bytes the guest sent while the socket was full" }
  rule { syscall: "recvfrom" fd: "serial" arg { index: 3 value: "MSG_DONTWAIT" } reason: "bytes for the guest" }
  rule { syscall: "read" syscall: "recvmsg" syscall: "write" syscall: "writev" syscall: "sendmsg" fd: "device" fd: "successor" reason: "RPC with devices" }
  rule { syscall: "dup3" arg { index: 1 fd: "device" fd: "successor" } arg { index: 2 value: "O_CLOEXEC" } reason: "the pipe of a device's successor takes the place of its own" }
  rule { syscall: "fcntl" fd: "kick" fd: "call" arg { index: 1 value: "F_GETFL" } reason: "whether a device's successor has made them block" }
  rule { syscall: "shutdown" fd: "device" fd: "successor" arg { index: 1 value: "SHUT_WR" } reason: "orderly end of a connection" }
  rule { syscall: "read" fd: "call" reason: "interrupts that go by a pin, or that are masked" }
  rule { syscall: "write" fd: "kick" fd: "call" reason: "a notification that came as an exit; an interrupt that became due" }
  rule { syscall: "tgkill" arg { index: 2 value: "SIGUSR2" value: "SIGABRT" } reason: "stops vCPUs; abort()" }
}

thread {
  name: "vcpu"
  include: "sandbox/common/thread.profile"
  narrow { syscall: "mmap" syscall: "munmap" syscall: "mprotect" reason: "there is one heap, and what a vCPU thread says fits into it" }
  narrow { syscall: "getpid" syscall: "gettid" syscall: "tgkill" syscall: "exit_group" reason: "abort() ends the process with or without them" }
  narrow { syscall: "rt_sigprocmask" arg { index: 0 value: "SIG_BLOCK" value: "SIG_SETMASK" } reason: "the end of the thread" }
  narrow { syscall: "clock_gettime" reason: "no register shows the host's time" }
  rule { syscall: "ioctl" fd: "vcpu" arg { index: 1 value: "KVM_RUN" value: "KVM_GET_REGS" } reason: "runs the guest; where it was when it crashed" }
  rule {
    syscall: "ioctl" fd: "vm"
    arg { index: 1 value: "KVM_IRQ_LINE" value: "KVM_SIGNAL_MSI" value: "KVM_SET_GSI_ROUTING" value: "KVM_IRQFD" value: "KVM_IOEVENTFD" }
    reason: "registers that change interrupts and notifications"
  }
  rule { syscall: "write" fd: "mailbox" fd: "kick" fd: "call" reason: "work for the main loop; notifications that came as an exit; interrupts" }
  rule { syscall: "read" fd: "call" reason: "an interrupt that waited while it was masked" }
  rule { syscall: "sendto" fd: "serial" arg { index: 3 value: "MSG_DONTWAIT|MSG_NOSIGNAL" } reason: "bytes of the serial port" }
  rule { syscall: "rt_sigreturn" reason: "the signal that stops a vCPU" }
}

# Kernel and initrd as they are read, KVM's own structures, a thread for each of up to 255 vCPUs and
# what KVM adds to them. Guest RAM and its page tables come on top.
cgroup {
  memory_max { value: 268435456 optional: "yes" }
  pids_max { value: 320 optional: "yes" }
}

budget { filter: "run" syscalls: 31 unconditional: 8 }
budget { filter: "thread:vcpu" syscalls: 10 unconditional: 3 }
