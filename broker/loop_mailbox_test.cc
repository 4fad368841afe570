#include "broker/loop_mailbox.h"

#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/thread.h>
#include <sys/eventfd.h>

#include <vector>

namespace troupe::broker {
namespace {

TEST(LoopMailbox, RunsOnTheLoopWhatOtherThreadsPostInTheirOrder) {
  auto io = kj::setupAsyncIo();
  LoopMailbox mailbox(io.unixEventPort, kj::AutoCloseFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
  auto serving = mailbox.serve().eagerlyEvaluate(nullptr);
  auto done = kj::newPromiseAndFulfiller<void>();
  std::vector<int> seen;
  pthread_t loopThread = pthread_self();
  kj::Thread poster([&]() {
    for (int i = 0; i < 1000; ++i) {
      mailbox.post([&seen, i, loopThread]() {
        if (pthread_equal(loopThread, pthread_self())) seen.push_back(i);
      });
    }
    mailbox.post([&done]() { done.fulfiller->fulfill(); });
  });
  done.promise.wait(io.waitScope);
  ASSERT_EQ(seen.size(), 1000u);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST(LoopMailbox, RunsWhatWasPostedBeforeItServed) {
  auto io = kj::setupAsyncIo();
  LoopMailbox mailbox(io.unixEventPort, kj::AutoCloseFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
  bool ran = false;
  mailbox.post([&ran]() { ran = true; });
  auto serving = mailbox.serve().eagerlyEvaluate(nullptr);
  io.waitScope.poll();
  EXPECT_TRUE(ran);
}

TEST(LoopMailbox, EndsServingWithTheExceptionOfAnAction) {
  auto io = kj::setupAsyncIo();
  LoopMailbox mailbox(io.unixEventPort, kj::AutoCloseFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
  auto serving = mailbox.serve();
  mailbox.post([]() { KJ_FAIL_REQUIRE("broken action"); });
  EXPECT_ANY_THROW(serving.wait(io.waitScope));
}

}  // namespace
}  // namespace troupe::broker
