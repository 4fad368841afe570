// troupe-vsock in its jail, as a process: what it holds, and how it ends.
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "devices/vsock/testing/vsock_bench.h"

namespace troupe::vsock {
namespace {

using testing::VsockBench;
using testing::Where;

TEST(VsockProcess, JailIsAsTheProfileSaysInEachStage) {
  VsockBench bench(Where::IN_JAIL);
  auto& process = KJ_ASSERT_NONNULL(bench.process);
  bench.device().attach();
  bench.device().describe();  // behind it the fds that came with attach() are closed
  EXPECT_EQ(kj::strArray(process.attest(sandbox::Stage::READY), "\n"), "");
}

TEST(VsockProcess, SocketsOfServedStreamsAreWhereTheProfileHasThem) {
  VsockBench bench(Where::IN_JAIL);
  bench.start();
  auto& process = KJ_ASSERT_NONNULL(bench.process);
  auto client = bench.forwarded.connect();
  bench.acceptIn();
  auto host = bench.connectOut(1024, 52);
  bench.device().describe();
  EXPECT_EQ(kj::strArray(process.attest(sandbox::Stage::RUN), "\n"), "");
}

// A login has a soft limit of 1024 as a rule; the first process of a system a hard one of 4096.
TEST(VsockProcess, StartsUnderTheLimitsOfAPlainLogin) {
  rlimit before;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &before));
  rlimit plain = {1024, before.rlim_max};
  KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &plain));
  KJ_DEFER(KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &before)));
  VsockBench bench(Where::IN_JAIL);
  bench.start();
  rlimit after;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &after));
  EXPECT_EQ(after.rlim_cur, 1024);
  rlimit its;
  KJ_SYSCALL(prlimit(KJ_ASSERT_NONNULL(bench.process).child().pid(), RLIMIT_NOFILE, nullptr, &its));
  EXPECT_LT(its.rlim_max, 4096);
}

TEST(VsockProcess, EndsWhenTheBrokerIsGone) {
  VsockBench bench(Where::IN_JAIL);
  bench.start();
  auto client = bench.forwarded.connect();
  bench.acceptIn();
  bench.device().disconnect();
  int status = KJ_ASSERT_NONNULL(bench.process).waitForExit();
  EXPECT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace troupe::vsock
