#include "vmm/actors/thread_look.h"

#include <dirent.h>
#include <kj/debug.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/limits/small_file.h"

namespace troupe {

namespace {

// Threads of a device, and some to spare.
constexpr size_t MOST_THREADS = 256;

kj::Maybe<ThreadLook> lookAt(pid_t pid, pid_t thread) {
  KJ_IF_MAYBE (text, sandbox::readSmallFile(kj::str("/proc/", pid, "/task/", thread, "/stat"))) {
    return parseThread(*text);
  }
  return nullptr;
}

}  // namespace

kj::Maybe<ThreadLook> parseThread(kj::StringPtr stat) {
  // The name is the thread's own choice, brackets included.
  KJ_IF_MAYBE (open, stat.findFirst('(')) {
    KJ_IF_MAYBE (close, stat.findLast(')')) {
      if (*close < *open) return nullptr;
      ThreadLook look;
      look.id = strtol(stat.cStr(), nullptr, 10);
      look.name = kj::heapString(stat.slice(*open + 1, *close));
      unsigned long user = 0, system = 0;
      int found =
          sscanf(stat.cStr() + *close + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                 &look.state, &user, &system);
      if (found != 3) return nullptr;
      static const long TICKS = sysconf(_SC_CLK_TCK);
      look.cpuTime = (user + system) * kj::SECONDS / TICKS;
      return kj::mv(look);
    }
  }
  return nullptr;
}

CpuClock::CpuClock(pid_t pid) : pid(pid) {
  clockid_t clock;
  if (clock_getcpuclockid(pid, &clock) == 0) id = clock;
}

kj::Maybe<kj::Duration> CpuClock::time() const {
  KJ_IF_MAYBE (clock, id) {
    timespec time;
    if (clock_gettime(*clock, &time) != 0) return nullptr;
    return time.tv_sec * kj::SECONDS + time.tv_nsec * kj::NANOSECONDS;
  }
  return nullptr;
}

kj::Maybe<ThreadLook> lookAtMainThread(pid_t pid) {
  return lookAt(pid, pid);
}

kj::Vector<ThreadLook> lookAtThreads(pid_t pid) {
  kj::Vector<ThreadLook> threads;
  KJ_IF_MAYBE (main, lookAtMainThread(pid)) {
    threads.add(kj::mv(*main));
  } else {
    return threads;
  }
  DIR* folder = opendir(kj::str("/proc/", pid, "/task").cStr());
  if (folder == nullptr) return threads;
  KJ_DEFER(closedir(folder));
  while (auto* entry = readdir(folder)) {
    pid_t thread = atoi(entry->d_name);
    if (thread <= 0 || thread == pid || threads.size() >= MOST_THREADS) continue;
    KJ_IF_MAYBE (look, lookAt(pid, thread)) {
      threads.add(kj::mv(*look));
    }
  }
  return threads;
}

bool isStopped(pid_t pid) {
  KJ_IF_MAYBE (main, lookAtMainThread(pid)) {
    return main->state == 'T' || main->state == 't';
  }
  return false;
}

bool isDebugged(pid_t pid) {
  KJ_IF_MAYBE (text, sandbox::readSmallFile(kj::str("/proc/", pid, "/status"))) {
    constexpr char KEY[] = "\nTracerPid:";
    const char* found = strstr(text->cStr(), KEY);
    if (found == nullptr) return false;
    long tracer = strtol(found + sizeof(KEY) - 1, nullptr, 10);
    return tracer != 0 && tracer != getpid();
  }
  return false;
}

}  // namespace troupe
