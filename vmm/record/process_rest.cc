#include "vmm/record/process_rest.h"

#include <dirent.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "sandbox/limits/small_file.h"

namespace troupe {

namespace {

constexpr size_t MOST_THREADS = 256;

// One thread that sleeps, and how often it has.
struct Sleep {
  pid_t thread;
  unsigned long long times;
  bool operator<(const Sleep& other) const { return thread < other.thread; }
  bool operator==(const Sleep& other) const {
    return thread == other.thread && times == other.times;
  }
};

// How often it gave a CPU back, of its own will or not.
kj::Maybe<unsigned long long> switches(kj::StringPtr status) {
  unsigned long long total = 0;
  for (auto key : {"\nvoluntary_ctxt_switches:", "\nnonvoluntary_ctxt_switches:"}) {
    const char* found = strstr(status.cStr(), key);
    if (found == nullptr) return nullptr;
    total += strtoull(found + strlen(key), nullptr, 10);
  }
  return total;
}

kj::Maybe<Sleep> sleepOf(pid_t pid, pid_t thread) {
  auto folder = kj::str("/proc/", pid, "/task/", thread, "/");
  KJ_IF_MAYBE (call, sandbox::readSmallFile(kj::str(folder, "syscall"))) {
    if (!isEndlessWait(*call)) return nullptr;
    KJ_IF_MAYBE (status, sandbox::readSmallFile(kj::str(folder, "status"))) {
      KJ_IF_MAYBE (times, switches(*status)) {
        return Sleep{thread, *times};
      }
    }
  }
  return nullptr;
}

// All threads in order; none unless every one of them sleeps without an end.
kj::Maybe<kj::Vector<Sleep>> sleeps(pid_t pid) {
  DIR* folder = opendir(kj::str("/proc/", pid, "/task").cStr());
  if (folder == nullptr) return nullptr;
  KJ_DEFER(closedir(folder));
  kj::Vector<Sleep> found;
  while (auto* entry = readdir(folder)) {
    pid_t thread = atoi(entry->d_name);
    if (thread <= 0) continue;
    if (found.size() == MOST_THREADS) return nullptr;
    KJ_IF_MAYBE (sleep, sleepOf(pid, thread)) {
      found.add(*sleep);
    } else {
      return nullptr;
    }
  }
  std::sort(found.begin(), found.end());
  if (found.size() == 0) return nullptr;
  return kj::mv(found);
}

}  // namespace

bool isEndlessWait(kj::StringPtr call) {
  // Decimal number, six arguments, stack and instruction pointer; "running" while it runs.
  long number;
  unsigned long long args[6];
  int read = sscanf(call.cStr(), "%ld 0x%llx 0x%llx 0x%llx 0x%llx 0x%llx 0x%llx", &number, &args[0],
                    &args[1], &args[2], &args[3], &args[4], &args[5]);
  if (read != 7) return false;
  switch (number) {
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
      return int32_t(args[3]) < 0;
    case SYS_poll:
      return int32_t(args[2]) < 0;
    case SYS_ppoll:
      return args[2] == 0;
    case SYS_futex: {
      int what = int(args[1]) & FUTEX_CMD_MASK;
      return (what == FUTEX_WAIT || what == FUTEX_WAIT_BITSET) && args[3] == 0;
    }
    default:
      return false;
  }
}

bool isAtRest(pid_t pid) {
  // Between the end of the first look and the beginning of the second all of them slept, or one of
  // them would have been switched since.
  KJ_IF_MAYBE (first, sleeps(pid)) {
    KJ_IF_MAYBE (second, sleeps(pid)) {
      return std::equal(first->begin(), first->end(), second->begin(), second->end());
    }
  }
  return false;
}

}  // namespace troupe
