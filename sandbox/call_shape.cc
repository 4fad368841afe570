#include "sandbox/call_shape.h"

#include <cstddef>
#include <cstring>

namespace troupe::sandbox {
namespace {

constexpr CallShape SHAPES[] = {
    {"accept4", "fxxW", {"SOCK_"}},
    {"arch_prctl", "Wx", {"=ARCH_"}},
    {"bind", "fxn", {}},
    {"brk", "x", {}},
    {"chdir", "x", {}},
    {"clock_gettime", "Wx", {"=CLOCK_"}},
    {"clock_nanosleep", "Wnxx", {"=CLOCK_"}},
    {"clone", "Wxxxx", {"CLONE_"}},
    {"close", "f", {}},
    {"connect", "fxn", {}},
    {"dup", "f", {}},
    {"dup2", "fn", {}},
    {"dup3", "fnW", {"O_"}},
    {"epoll_create1", "W", {"EPOLL_CLOEXEC"}},
    {"epoll_ctl", "fWfx", {"=EPOLL_CTL_"}},
    {"epoll_pwait", "fxnnxn", {}},
    {"epoll_wait", "fxnn", {}},
    {"eventfd2", "nW", {"EFD_"}},
    {"execve", "xxx", {}},
    {"execveat", "fxxxw", {"AT_"}},
    {"exit", "n", {}},
    {"exit_group", "n", {}},
    {"fallocate", "fWnn", {"FALLOC_FL_"}},
    {"fcntl", "fWx", {"=F_"}},
    {"fdatasync", "f", {}},
    {"fork", "", {}},
    {"fstat", "fx", {}},
    {"fstatfs", "fx", {}},
    {"fsync", "f", {}},
    {"ftruncate", "fn", {}},
    {"futex", "xWnxxn", {"FUTEX_"}},
    {"getcwd", "xn", {}},
    {"getdents64", "fxn", {}},
    {"getegid", "", {}},
    {"geteuid", "", {}},
    {"getgid", "", {}},
    {"getpid", "", {}},
    {"getppid", "", {}},
    {"getrandom", "xnW", {"GRND_"}},
    {"getsockopt", "fWWxx", {"=SOL_", "=SO_"}},
    {"gettid", "", {}},
    {"getuid", "", {}},
    {"io_uring_enter", "fnnxxn", {}},
    {"io_uring_register", "fnxn", {}},
    {"io_uring_setup", "nx", {}},
    {"ioctl", "fWx", {"=KVM_/BLK/FIO/TIOC/TC/TUN/UDMABUF"}},
    {"kill", "nW", {"=SIG"}},
    {"listen", "fn", {}},
    {"lseek", "fnW", {"=SEEK_"}},
    {"madvise", "xnW", {"=MADV_"}},
    {"membarrier", "Wnn", {"=MEMBARRIER_CMD_"}},
    {"memfd_create", "xW", {"MFD_"}},
    {"mmap", "xnWWfn", {"PROT_", "MAP_"}},
    {"mount", "xxxxx", {}},
    {"mprotect", "xnW", {"PROT_"}},
    {"mremap", "xnnW", {"MREMAP_"}},
    {"munmap", "xn", {}},
    {"newfstatat", "fxxW", {"AT_"}},
    {"open", "xwn", {"O_"}},
    {"openat", "fxwn", {"O_"}},
    {"pipe2", "xW", {"O_"}},
    {"poll", "xnn", {}},
    {"ppoll", "xnxxn", {}},
    {"prctl", "Wxxxx", {"=PR_"}},
    {"pread64", "fxnn", {}},
    {"preadv", "fxnnn", {}},
    {"preadv2", "fxnnnW", {"RWF_"}},
    {"prlimit64", "nWxx", {"=RLIMIT_"}},
    {"ptrace", "nnxx", {}},
    {"pwrite64", "fxnn", {}},
    {"pwritev", "fxnnn", {}},
    {"pwritev2", "fxnnnW", {"RWF_"}},
    {"read", "fxn", {}},
    {"readlink", "xxn", {}},
    {"readlinkat", "fxxn", {}},
    {"readv", "fxn", {}},
    {"recvfrom", "fxnWxx", {"MSG_"}},
    {"recvmsg", "fxW", {"MSG_"}},
    {"rseq", "xnnn", {}},
    {"rt_sigaction", "Wxxn", {"=SIG"}},
    {"rt_sigprocmask", "Wxxn", {"=SIG_"}},
    {"rt_sigreturn", "", {}},
    {"sched_getaffinity", "nnx", {}},
    {"sched_setaffinity", "nnx", {}},
    {"sched_yield", "", {}},
    {"seccomp", "Wwx", {"=SECCOMP_SET_", "SECCOMP_FILTER_FLAG_"}},
    {"sendmsg", "fxW", {"MSG_"}},
    {"sendto", "fxnWxn", {"MSG_"}},
    {"set_robust_list", "xn", {}},
    {"set_tid_address", "x", {}},
    {"setsockopt", "fWWxn", {"=SOL_", "=SO_"}},
    {"shutdown", "fW", {"=SHUT_"}},
    {"signalfd4", "fxnW", {"SFD_"}},
    {"socket", "WWn", {"=AF_", "SOCK_"}},
    {"socketpair", "WWnx", {"=AF_", "SOCK_"}},
    {"stat", "xx", {}},
    {"statx", "fxwxx", {"AT_"}},
    {"sysinfo", "x", {}},
    {"tgkill", "nnW", {"=SIG"}},
    {"timerfd_create", "WW", {"=CLOCK_", "TFD_"}},
    {"timerfd_settime", "fWxx", {"TFD_"}},
    {"uname", "x", {}},
    {"unshare", "W", {"CLONE_"}},
    {"vfork", "", {}},
    {"wait4", "nxnx", {}},
    {"write", "fxn", {}},
    {"writev", "fxn", {}},
};

constexpr bool hasItsWords(const CallShape& shape) {
  size_t count = 0;
  for (const char* letter = shape.arguments; *letter != 0; letter++)
    count += *letter == 'w' || *letter == 'W';
  return count <= 2 && (count < 1 || shape.words[0] != nullptr) &&
         (count < 2 || shape.words[1] != nullptr);
}

constexpr bool haveTheirWords() {
  for (const CallShape& shape : SHAPES) {
    if (!hasItsWords(shape)) return false;
  }
  return true;
}
static_assert(haveTheirWords(), "each w and W says how its constants begin");

constexpr CallShape UNKNOWN = {"", "xxxxxx", {}};

}  // namespace

const CallShape& callShape(const char* name) {
  for (const CallShape& shape : SHAPES) {
    if (strcmp(shape.name, name) == 0) return shape;
  }
  return UNKNOWN;
}

const char* wordsOf(const CallShape& shape, unsigned index) {
  size_t which = 0;
  for (unsigned i = 0; i < index; i++)
    which += shape.arguments[i] == 'w' || shape.arguments[i] == 'W';
  return shape.words[which];
}

}  // namespace troupe::sandbox
