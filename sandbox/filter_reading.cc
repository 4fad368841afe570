#include "sandbox/filter_reading.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/errno_text.h"
#include "sandbox/proc_files.h"

namespace troupe::sandbox {
namespace {

// More than any actor stacks up; the kernel itself stops far above.
constexpr size_t MOST_FILTERS = 16;

bool hasSysAdmin() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2] = {};
  if (syscall(SYS_capget, &header, sets) != 0) return false;
  return (sets[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN)) != 0;
}

}  // namespace

kj::String whyNoFilterReading() {
  if (!hasSysAdmin()) return kj::str("that takes CAP_SYS_ADMIN");
  KJ_IF_MAYBE (status, readAll(AT_FDCWD, "/proc/self/status")) {
    if (statusField(*status, "Seccomp") != "0") {
      return kj::str("the kernel refuses it to a process that has a filter itself");
    }
  }
  return nullptr;
}

void readFiltersOf(pid_t thread, kj::Vector<ThreadFilters>& threads, kj::String& refusal) {
  kj::Vector<kj::Array<sock_filter>> programs;
  sock_filter buffer[BPF_MAXINSNS];
  while (programs.size() < MOST_FILTERS) {
    long length = ptrace(static_cast<__ptrace_request>(PTRACE_SECCOMP_GET_FILTER), thread,
                         programs.size(), buffer);
    if (length < 0) {
      // ENOENT: there are no more. The others speak of this process, not of the thread.
      bool ours = errno == EACCES || errno == EINVAL || errno == EIO;
      if (ours) refusal = kj::str("the kernel refuses it: ", errnoText(errno));
      break;
    }
    programs.add(kj::heapArray<sock_filter>(buffer, length));
  }
  threads.add(ThreadFilters{thread, programs.releaseAsArray()});
}

}  // namespace troupe::sandbox
