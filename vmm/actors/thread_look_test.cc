#include "vmm/actors/thread_look.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace troupe {
namespace {

TEST(ThreadLook, ReadsALineOfTheKernel) {
  auto found =
      parseThread("42 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17 18 19 20 21 22 23\n");
  ASSERT_TRUE(found != nullptr);
  auto& thread = KJ_ASSERT_NONNULL(found);
  EXPECT_EQ(thread.id, 42);
  EXPECT_EQ(thread.name, "a) b (c");
  EXPECT_EQ(thread.state, 'R');
  EXPECT_EQ(thread.cpuTime / kj::MILLISECONDS, 3000);
  EXPECT_TRUE(parseThread("") == nullptr);
  EXPECT_TRUE(parseThread("1 )( R") == nullptr);
  EXPECT_TRUE(parseThread("1 (x) R 1 2") == nullptr);
}

TEST(ThreadLook, SeesThatAProcessUsesCpuTime) {
  auto before = KJ_ASSERT_NONNULL(CpuClock(getpid()).time());
  auto after = KJ_ASSERT_NONNULL(CpuClock(getpid()).time());
  EXPECT_GT(after, before);
}

TEST(ThreadLook, SeesWhetherAChildHasDoneAnything) {
  pid_t child = fork();
  if (child == 0) {
    for (;;)
      pause();
  }
  KJ_DEFER({
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  });
  auto isAtRest = [&] {
    auto before = KJ_ASSERT_NONNULL(CpuClock(child).time());
    if (KJ_ASSERT_NONNULL(lookAtMainThread(child)).state != 'S') return false;
    return KJ_ASSERT_NONNULL(CpuClock(child).time()) == before;
  };
  while (!isAtRest())
    sched_yield();
  auto before = KJ_ASSERT_NONNULL(CpuClock(child).time());
  EXPECT_EQ(KJ_ASSERT_NONNULL(CpuClock(child).time()), before);
  kill(child, SIGSTOP);
  waitpid(child, nullptr, WUNTRACED);
  EXPECT_GT(KJ_ASSERT_NONNULL(CpuClock(child).time()), before);
  EXPECT_TRUE(isStopped(child));
}

TEST(ThreadLook, OfAProcessThatIsGoneThereIsNothing) {
  pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(CpuClock(child).time() == nullptr);
  EXPECT_TRUE(lookAtMainThread(child) == nullptr);
}

TEST(ThreadLook, SeesThisProcess) {
  auto threads = lookAtThreads(getpid());
  ASSERT_GT(threads.size(), 0);
  EXPECT_EQ(threads[0].id, getpid());
  EXPECT_FALSE(isStopped(getpid()));
}

}  // namespace
}  // namespace troupe
