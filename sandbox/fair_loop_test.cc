#include "sandbox/fair_loop.h"

#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <unistd.h>

namespace troupe::sandbox {
namespace {

// As one reads that finds more each time.
kj::Promise<void> readOn() {
  return kj::evalLater([]() {}).then([]() { return readOn(); });
}

class FairLoop: public testing::Test {
 protected:
  FairLoop() { alarm(10); }  // who is never looked at waits forever
  ~FairLoop() noexcept override { alarm(0); }
  kj::AsyncIoContext io = setupFairIo();
  kj::Promise<void> busy = readOn().eagerlyEvaluate(nullptr);
};

TEST_F(FairLoop, TimePassesWhileThereIsAlwaysMoreToDo) {
  io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(io.waitScope);
}

TEST_F(FairLoop, OtherFdsAreLookedAtWhileThereIsAlwaysMoreToDo) {
  int fds[2];
  KJ_SYSCALL(pipe(fds));
  kj::AutoCloseFd writer(fds[1]);
  auto reader = io.lowLevelProvider->wrapInputFd(kj::AutoCloseFd(fds[0]));
  char byte;
  auto got = reader->read(&byte, 1).eagerlyEvaluate(nullptr);  // there is none yet
  KJ_SYSCALL(write(writer, "x", 1));
  got.wait(io.waitScope);
  EXPECT_EQ(byte, 'x');
}

}  // namespace
}  // namespace troupe::sandbox
