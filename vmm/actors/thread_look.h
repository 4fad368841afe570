#pragma once

#include <kj/string.h>
#include <kj/time.h>
#include <kj/vector.h>
#include <sys/types.h>
#include <time.h>

#include <cstdint>

namespace troupe {

// One thread of a process as the kernel shows it in /proc.
struct ThreadLook {
  pid_t id;
  kj::String name;
  char state;  // 'R' runs or waits for a CPU, 'S' sleeps, 'D' waits for a disk, 'T', 't' …
  kj::Duration cpuTime;  // in steps of 10 ms
};

// Whether somebody froze the control group of a process (cgroup.freeze), which no state shows: it
// sleeps then, and nothing wakes it up.
enum class Freeze { NONE, OF_IT_ALONE, OF_OTHERS_TOO };

// A process as it is seen from outside.
class ProcessLook {
 public:
  // The CPU time of all its threads together, to the nanosecond; none when it is gone.
  virtual kj::Maybe<kj::Duration> cpuTime() = 0;

  // These take longer. None when it is gone; of the second the main thread is the first.
  virtual kj::Maybe<ThreadLook> mainThread() = 0;
  virtual kj::Vector<ThreadLook> threads() = 0;
  virtual Freeze freeze() = 0;
};

// The same of a child that has not been waited for.
kj::Maybe<ThreadLook> lookAtMainThread(pid_t pid);
kj::Vector<ThreadLook> lookAtThreads(pid_t pid);

// Its clock of CPU time.
class CpuClock {
 public:
  explicit CpuClock(pid_t pid);
  kj::Maybe<kj::Duration> time() const;

  const pid_t pid;

 private:
  kj::Maybe<clockid_t> id;
};

// What /proc/PID/stat says of one thread; none when it says nothing sound.
kj::Maybe<ThreadLook> parseThread(kj::StringPtr stat);

// Whether its main thread was stopped by a signal: it does nothing before SIGCONT.
bool isStopped(pid_t pid);

// Whether somebody else than this process traces it: a debugger.
bool isDebugged(pid_t pid);

}  // namespace troupe
