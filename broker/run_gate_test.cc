#include "broker/run_gate.h"

#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <sys/eventfd.h>

#include <thread>

#include "broker/loop_mailbox.h"

namespace troupe::broker {
namespace {

struct Bench {
  Bench()
      : io(kj::setupAsyncIo()),
        mailbox(io.unixEventPort, kj::AutoCloseFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))),
        serving(mailbox.serve().eagerlyEvaluate(
            [](kj::Exception&& e) { ADD_FAILURE() << kj::str(e).cStr(); })),
        gate(mailbox) {}

  // What a vCPU does, `runs` counting its entries to the guest.
  void play(std::atomic<uint64_t>& runs) {
    for (;;) {
      if (gate.isClosed()) {
        gate.arrive();
        if (!gate.pass()) return;
        continue;
      }
      ++runs;
      std::this_thread::yield();
    }
  }

  kj::AsyncIoContext io;
  LoopMailbox mailbox;
  kj::Promise<void> serving;
  RunGate gate;
};

TEST(RunGate, NobodyRunsWhileThereIsAnyHold) {
  Bench bench;
  std::atomic<uint64_t> runs{0};
  std::thread one([&] { bench.play(runs); }), two([&] { bench.play(runs); });
  bench.gate.awaitArrivals(2);
  EXPECT_EQ(runs, 0u);
  bench.gate.release(Hold::START);
  while (runs < 100)
    std::this_thread::yield();

  bench.gate.hold(Hold::PAUSED);
  bench.gate.hold(Hold::REBOOTING);
  bench.gate.whenArrived(2).wait(bench.io.waitScope);
  uint64_t before = runs;
  bench.gate.release(Hold::PAUSED);
  EXPECT_TRUE(bench.gate.isClosed());
  bench.gate.whenArrived(2).wait(bench.io.waitScope);
  EXPECT_EQ(runs, before);

  bench.gate.release(Hold::REBOOTING);
  while (runs == before)
    std::this_thread::yield();
  bench.gate.hold(Hold::ENDED);
  bench.gate.dismiss();
  one.join();
  two.join();
}

TEST(RunGate, WhatAThreadPostedComesBeforeItsArrival) {
  Bench bench;
  kj::Vector<kj::StringPtr> order;
  std::thread one([&] {
    bench.mailbox.post([&]() { order.add("posted"); });
    bench.gate.arrive();
  });
  bench.gate.whenArrived(1).then([&]() { order.add("arrived"); }).wait(bench.io.waitScope);
  one.join();
  EXPECT_EQ(kj::strArray(order, " "), "posted arrived");
}

TEST(RunGate, AnyNumberMayWaitForTheSameThreads) {
  Bench bench;
  auto first = bench.gate.whenArrived(1), second = bench.gate.whenArrived(2);
  bench.gate.arrive();
  first.wait(bench.io.waitScope);
  EXPECT_FALSE(second.poll(bench.io.waitScope));
  bench.gate.arrive();
  second.wait(bench.io.waitScope);
  bench.gate.whenArrived(2).wait(bench.io.waitScope);
}

TEST(RunGate, OpenedAndClosedAtOnceFromSeveralThreadsLosesNobody) {
  Bench bench;
  std::atomic<uint64_t> runs{0};
  std::thread vcpu([&] { bench.play(runs); });
  bench.gate.release(Hold::START);
  std::thread ender([&] {
    for (int i = 0; i < 1000; ++i)
      bench.gate.hold(Hold::ENDED);
  });
  for (int i = 0; i < 1000; ++i) {
    bench.gate.hold(Hold::PAUSED);
    bench.gate.whenArrived(1).wait(bench.io.waitScope);
    bench.gate.release(Hold::PAUSED);
    bench.gate.release(Hold::ENDED);
  }
  ender.join();
  bench.gate.hold(Hold::ENDED);
  bench.gate.dismiss();
  vcpu.join();
}

}  // namespace
}  // namespace troupe::broker
