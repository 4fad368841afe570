#include "vmm/observe/process_load.h"

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>

namespace troupe {
namespace {

struct Load {
  capnp::MallocMessageBuilder message;
  ProcessLoad::Builder builder = message.initRoot<ProcessLoad>();
};

void burn(uint64_t ns) {
  timespec now;
  do {
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  } while (uint64_t(now.tv_sec) * 1000000000 + now.tv_nsec < ns);
}

// Another process, which has done `work` and then waits.
template <typename Work>
struct Other {
  explicit Other(Work&& work) {
    int done[2];
    KJ_SYSCALL(pipe(done));
    pid = fork();
    if (pid == 0) {
      work();
      char byte = 0;
      if (write(done[1], &byte, 1) != 1) _exit(1);
      pause();
    }
    char byte;
    KJ_SYSCALL(read(done[0], &byte, 1));
    close(done[0]);
    close(done[1]);
  }
  ~Other() {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  pid_t pid;
};

TEST(ProcessLoad, TellsTheCpuTimeOfAnotherProcessWithAllItsThreads) {
  constexpr uint64_t EACH_NS = 20000000;
  Other other([]() {
    std::thread second([]() { burn(EACH_NS); });
    burn(EACH_NS);
    second.join();
  });
  Load load;
  describeUse(other.pid, load.builder);
  EXPECT_GE(load.builder.getCpuNs(), 2 * EACH_NS);
  EXPECT_EQ(load.builder.getPid(), other.pid);
}

TEST(ProcessLoad, TellsPrivateMemoryFromShared) {
  constexpr size_t BYTES = 64 << 20;
  Other other([]() {
    for (int kind : {MAP_PRIVATE, MAP_SHARED}) {
      size_t bytes = kind == MAP_PRIVATE ? BYTES : BYTES / 2;
      auto memory = static_cast<volatile char*>(
          mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0));
      for (size_t i = 0; i < bytes; i += 4096)
        memory[i] = 1;
    }
  });
  Load load;
  describeUse(other.pid, load.builder);
  EXPECT_GE(load.builder.getPrivateBytes(), BYTES);
  EXPECT_LT(load.builder.getPrivateBytes(), BYTES + BYTES / 4);
  EXPECT_GE(load.builder.getSharedBytes(), BYTES / 2);
  EXPECT_LT(load.builder.getSharedBytes(), BYTES);
}

TEST(ProcessLoad, OfAProcessThatIsGoneNothingIsTold) {
  pid_t pid;
  {
    Other other([]() {});
    pid = other.pid;
  }
  Load load;
  describeUse(pid, load.builder);
  EXPECT_EQ(load.builder.getCpuNs(), 0u);
  EXPECT_EQ(load.builder.getPrivateBytes(), 0u);
  describeVcpus(pid, load.builder);
  EXPECT_EQ(load.builder.getThreads().size(), 0u);
}

TEST(ProcessLoad, ListsThreadsThatAreNamedAsVcpusByTheirNumber) {
  Other other([]() {
    for (const char* name : {"vp-10", "vp-2", "worker", "vp-x", "vp-", "vp-999"}) {
      std::thread([name]() {
        prctl(PR_SET_NAME, name);
        burn(2000000);
        pause();
      }).detach();
    }
  });
  // The names are given by the threads themselves.
  Load load;
  while (load.builder.getThreads().size() < 2)
    describeVcpus(other.pid, load.builder);
  ASSERT_EQ(load.builder.getThreads().size(), 2u);
  EXPECT_STREQ(load.builder.getThreads()[0].getName().cStr(), "vp-2");
  EXPECT_STREQ(load.builder.getThreads()[1].getName().cStr(), "vp-10");
}

}  // namespace
}  // namespace troupe
