#include "vmm/record/process_rest.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace troupe {
namespace {

// A child that does as it is told until it is destroyed.
class Process {
 public:
  template <typename Do>
  explicit Process(Do&& does) {
    KJ_SYSCALL(pid = fork());
    if (pid == 0) {
      does();
      _exit(0);
    }
  }
  ~Process() {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  pid_t pid;
};

TEST(ProcessRest, IsSeenOfOneThatWaitsForOthersAlone) {
  Process waits([]() { poll(nullptr, 0, -1); });
  while (!isAtRest(waits.pid))
    usleep(1000);
}

TEST(ProcessRest, IsNotSeenOfOneThatGoesOnByItself) {
  int pipe[2];
  KJ_SYSCALL(pipe2(pipe, O_CLOEXEC));
  Process waits([&]() {
    for (;;) {
      KJ_SYSCALL(write(pipe[1], "", 1));
      poll(nullptr, 0, 1000);
    }
  });
  for (int i = 0; i < 3; i++) {
    char word;
    KJ_SYSCALL(read(pipe[0], &word, 1));
    EXPECT_FALSE(isAtRest(waits.pid));
  }
  Process works([]() {
    for (volatile int i = 0;; i++) {
    }
  });
  EXPECT_FALSE(isAtRest(works.pid));
}

TEST(ProcessRest, IsNotSeenOfOneThatIsGone) {
  pid_t gone = Process([]() {}).pid;
  EXPECT_FALSE(isAtRest(gone));
}

TEST(ProcessRest, WaitsAreToldByTheirTimeouts) {
  EXPECT_TRUE(isEndlessWait("232 0x0 0x7ffc 0x10 0xffffffff 0x0 0x8 0x7ffc 0x7f00\n"));
  EXPECT_TRUE(isEndlessWait("232 0x0 0x7ffc 0x10 0xffffffffffffffff 0x0 0x8 0x7ffc 0x7f00\n"));
  EXPECT_FALSE(isEndlessWait("232 0x0 0x7ffc 0x10 0x64 0x0 0x8 0x7ffc 0x7f00\n"));
  EXPECT_TRUE(isEndlessWait("271 0x7ffc 0x2 0x0 0x0 0x8 0x0 0x7ffc 0x7f00\n"));
  EXPECT_FALSE(isEndlessWait("271 0x7ffc 0x2 0x7ffd 0x0 0x8 0x0 0x7ffc 0x7f00\n"));
  EXPECT_TRUE(isEndlessWait("202 0x7ffc 0x80 0x2 0x0 0x0 0x0 0x7ffc 0x7f00\n"));
  EXPECT_FALSE(isEndlessWait("202 0x7ffc 0x80 0x2 0x7ffd 0x0 0x0 0x7ffc 0x7f00\n"));
  EXPECT_FALSE(isEndlessWait("202 0x7ffc 0x81 0x2 0x0 0x0 0x0 0x7ffc 0x7f00\n")) << "a wake";
  EXPECT_FALSE(isEndlessWait("0 0x3 0x7ffc 0x2 0x0 0x0 0x0 0x7ffc 0x7f00\n")) << "of a disk";
  EXPECT_FALSE(isEndlessWait("running\n"));
  EXPECT_FALSE(isEndlessWait("-1 0x7ffc 0x7f00\n"));
  EXPECT_FALSE(isEndlessWait(""));
}

}  // namespace
}  // namespace troupe
