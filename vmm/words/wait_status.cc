#include "vmm/words/wait_status.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>

namespace troupe {

kj::String describeWaitStatus(int status) {
  if (WIFEXITED(status)) return kj::str("exited with status ", WEXITSTATUS(status));
  if (!WIFSIGNALED(status)) return kj::str("ended with wait status ", status);
  int number = WTERMSIG(status);
  kj::StringPtr name = sigabbrev_np(number) ?: "?";
  auto text = kj::str("was killed by SIG", name, " (signal ", number, ")");
  switch (number) {
    case SIGSYS:
      return kj::str(text, ": it made a system call its profile does not allow");
    case SIGSEGV:
      // As the first process of its namespace it cannot take SIGABRT.
      return kj::str(text, ": it touched memory it does not have, or gave up by abort()");
    default:
      return text;
  }
}

}  // namespace troupe
