#pragma once

#include <kj/string.h>
#include <kj/time.h>
#include <kj/vector.h>
#include <sys/types.h>

#include <cstdint>

namespace troupe {

// One thread of a process as the kernel shows it in /proc.
struct ThreadLook {
  pid_t id;
  kj::String name;
  char state;  // 'R' runs or waits for a CPU, 'S' sleeps, 'D' waits for a disk, 'T', 't' …
  kj::Duration cpuTime;  // in steps of 10 ms
};

// The threads of a process at one moment, its main thread first; none when it is gone.
kj::Vector<ThreadLook> lookAtThreads(pid_t pid);

// What /proc/PID/stat says of one thread; none when it says nothing sound.
kj::Maybe<ThreadLook> parseThread(kj::StringPtr stat);

// Whether its main thread was stopped by a signal: it does nothing before SIGCONT.
bool isStopped(pid_t pid);

// Whether somebody else than this process traces it: a debugger.
bool isDebugged(pid_t pid);

}  // namespace troupe
