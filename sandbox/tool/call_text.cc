#include "sandbox/tool/call_text.h"

#include <algorithm>
#include <cstring>

namespace troupe::sandbox {
namespace {

struct Call {
  const char* name;
  const char* arguments[6];
};

// The calls whose arguments profiles speak of.
constexpr Call CALLS[] = {
    {"accept4", {"sockfd", "addr", "addrlen", "flags"}},
    {"arch_prctl", {"op", "addr"}},
    {"brk", {"addr"}},
    {"clock_gettime", {"clockid", "tp"}},
    {"clone", {"flags", "stack", "parent_tid", "child_tid", "tls"}},
    {"close", {"fd"}},
    {"dup3", {"oldfd", "newfd", "flags"}},
    {"epoll_create1", {"flags"}},
    {"epoll_ctl", {"epfd", "op", "fd", "event"}},
    {"epoll_wait", {"epfd", "events", "maxevents", "timeout"}},
    {"eventfd2", {"initval", "flags"}},
    {"execveat", {"dirfd", "pathname", "argv", "envp", "flags"}},
    {"exit", {"status"}},
    {"exit_group", {"status"}},
    {"fallocate", {"fd", "mode", "offset", "len"}},
    {"fcntl", {"fd", "op", "arg"}},
    {"fdatasync", {"fd"}},
    {"fstat", {"fd", "statbuf"}},
    {"fstatfs", {"fd", "buf"}},
    {"fsync", {"fd"}},
    {"ftruncate", {"fd", "length"}},
    {"futex", {"uaddr", "op", "val", "timeout", "uaddr2", "val3"}},
    {"getrandom", {"buf", "buflen", "flags"}},
    {"io_uring_enter", {"fd", "to_submit", "min_complete", "flags", "argp", "argsz"}},
    {"io_uring_register", {"fd", "opcode", "arg", "nr_args"}},
    {"io_uring_setup", {"entries", "params"}},
    {"ioctl", {"fd", "request", "arg"}},
    {"kill", {"pid", "sig"}},
    {"lseek", {"fd", "offset", "whence"}},
    {"madvise", {"addr", "length", "advice"}},
    {"memfd_create", {"name", "flags"}},
    {"mmap", {"addr", "length", "prot", "flags", "fd", "offset"}},
    {"mprotect", {"addr", "length", "prot"}},
    {"mremap", {"addr", "old_size", "new_size", "flags", "new_addr"}},
    {"munmap", {"addr", "length"}},
    {"newfstatat", {"dirfd", "pathname", "statbuf", "flags"}},
    {"openat", {"dirfd", "pathname", "flags", "mode"}},
    {"ppoll", {"fds", "nfds", "timeout", "sigmask", "sigsetsize"}},
    {"prctl", {"op", "arg2", "arg3", "arg4", "arg5"}},
    {"pread64", {"fd", "buf", "count", "offset"}},
    {"preadv", {"fd", "iov", "iovcnt", "pos_l", "pos_h"}},
    {"preadv2", {"fd", "iov", "iovcnt", "pos_l", "pos_h", "flags"}},
    {"prlimit64", {"pid", "resource", "new_limit", "old_limit"}},
    {"pwrite64", {"fd", "buf", "count", "offset"}},
    {"pwritev", {"fd", "iov", "iovcnt", "pos_l", "pos_h"}},
    {"pwritev2", {"fd", "iov", "iovcnt", "pos_l", "pos_h", "flags"}},
    {"read", {"fd", "buf", "count"}},
    {"readv", {"fd", "iov", "iovcnt"}},
    {"recvfrom", {"sockfd", "buf", "len", "flags", "src_addr", "addrlen"}},
    {"recvmsg", {"sockfd", "msg", "flags"}},
    {"rt_sigaction", {"signum", "act", "oldact", "sigsetsize"}},
    {"rt_sigprocmask", {"how", "set", "oldset", "sigsetsize"}},
    {"seccomp", {"operation", "flags", "args"}},
    {"sendmsg", {"sockfd", "msg", "flags"}},
    {"sendto", {"sockfd", "buf", "len", "flags", "dest_addr", "addrlen"}},
    {"shutdown", {"sockfd", "how"}},
    {"signalfd4", {"fd", "mask", "sizemask", "flags"}},
    {"socket", {"domain", "type", "protocol"}},
    {"statx", {"dirfd", "pathname", "flags", "mask", "statxbuf"}},
    {"tgkill", {"tgid", "tid", "sig"}},
    {"timerfd_create", {"clockid", "flags"}},
    {"timerfd_settime", {"fd", "flags", "new_value", "old_value"}},
    {"write", {"fd", "buf", "count"}},
    {"writev", {"fd", "iov", "iovcnt"}},
};

size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); j++)
    row[j] = j;
  for (size_t i = 1; i <= a.size(); i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); j++) {
      size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string argumentName(const std::string& syscall, uint32_t index) {
  for (const Call& call : CALLS) {
    if (syscall == call.name && index < 6 && call.arguments[index] != nullptr) {
      return call.arguments[index];
    }
  }
  return "argument " + std::to_string(index);
}

std::string conditionsText(const PolicyRule& rule) {
  if (rule.arguments.empty()) return "-";
  std::vector<const PolicyArgument*> sorted;
  for (const PolicyArgument& argument : rule.arguments)
    sorted.push_back(&argument);
  std::sort(sorted.begin(), sorted.end(),
            [](const PolicyArgument* a, const PolicyArgument* b) { return a->index < b->index; });
  std::string text;
  for (const PolicyArgument* argument : sorted) {
    text += (text.empty() ? "" : ", ") + argumentName(rule.syscallName, argument->index) + " " +
            argument->text;
  }
  return text;
}

std::string placeText(const SourceLocation& where) {
  return where.line == 0 ? "built in" : where.file + ":" + std::to_string(where.line);
}

std::string callText(const PolicyRule& rule) {
  return rule.error == 0 ? rule.syscallName : rule.syscallName + " fails " + rule.fail;
}

std::string reasonText(const PolicyRule& rule) {
  std::string text = rule.reason;
  for (const SourceLocation& where : rule.narrowedBy)
    text += " (narrowed by " + placeText(where) + ")";
  return text;
}

std::string didYouMean(const std::string& word, const std::vector<std::string>& choices) {
  std::string best;
  size_t bestDistance = std::min<size_t>(3, word.size() / 2 + 1);
  for (const std::string& choice : choices) {
    size_t d = word.size() > 64 ? bestDistance : distance(word, choice);
    if (d < bestDistance) {
      bestDistance = d;
      best = choice;
    }
  }
  return best.empty() ? "" : "; did you mean " + best + "?";
}

}  // namespace troupe::sandbox
