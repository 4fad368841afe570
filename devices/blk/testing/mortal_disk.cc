#include "devices/blk/testing/mortal_disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/blk/blk_profile.h"
#include "sandbox/shared_memory.h"

namespace troupe::blk::testing {
namespace {

using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;
using Clock = std::chrono::steady_clock;

constexpr uint64_t JOURNAL_BYTES = 1 << 20;
constexpr uint64_t ALL_FEATURES = FEATURES | virtio::BLK_F_DISCARD | virtio::BLK_F_WRITE_ZEROES;

}  // namespace

MortalDisk::MortalDisk(CheckingDriver& driver)
    : driver(driver), journals(sandbox::makeSharedMemory("journals", JOURNAL_BYTES).writable) {
  auto made = message.initRoot<BlkConfig>();
  made.setId("mortal");
  made.setQueues(driver.drivers.size());
  fds.add(HandedFd{"journal", 0, journals});
}

void MortalDisk::hand(kj::StringPtr name, kj::uint index, kj::AutoCloseFd fd) {
  fds.add(HandedFd{name, index, fd});
  files.add(kj::mv(fd));
}

int MortalDisk::keep(uint64_t bytes) {
  auto memory = sandbox::makeSharedMemory("kept", bytes);
  int fd = memory.writable;
  hand("kept", 0, kj::mv(memory.writable));
  return fd;
}

void MortalDisk::begin() {
  begun = Clock::now();
  int ends[2];
  KJ_SYSCALL(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  witness = kj::AutoCloseFd(ends[0]);
  kj::AutoCloseFd theirs(ends[1]);
  kj::Vector<HandedFd> handed;
  handed.addAll(fds);
  handed.add(HandedFd{"witness", 0, theirs});
  auto& process = *life.emplace(
      kj::heap<ProcessBench>(driver.ram, BLK_PROFILE, "troupe-blk", driver.drivers.size(), handed,
                             message.getRoot<capnp::AnyPointer>().asReader()));
  theirs = nullptr;
  process.attach();
  auto request =
      driver.drivers.size() == 1
          ? process.activateRequest(ALL_FEATURES, {&driver.driver(0)})
          : process.activateRequest(ALL_FEATURES, {&driver.driver(0), &driver.driver(1)});
  request.setResumed(!isFirst);
  isFirst = false;
  process.await(request.send().ignoreResult());
}

double MortalDisk::serve(kj::Function<bool()> goesOn) {
  double stall = -1;
  auto deadline = Clock::now() + std::chrono::seconds(60);
  while (!::testing::Test::HasFailure() && goesOn()) {
    for (uint16_t queue = 0; queue < driver.drivers.size(); queue++) {
      if (driver.driver(queue).shouldKick()) process().kick(queue);
    }
    if (driver.check() > 0 && stall < 0) {
      stall = std::chrono::duration<double, std::milli>(Clock::now() - begun).count();
    }
    KJ_ASSERT(Clock::now() < deadline, "a request is not answered");
  }
  return stall;
}

double MortalDisk::serveFor(std::chrono::microseconds time) {
  auto until = Clock::now() + time;
  return serve([this, until] {
    driver.fill();
    return Clock::now() < until;
  });
}

double MortalDisk::serveUntilIdle() {
  return serve([this] { return !driver.isIdle(); });
}

void MortalDisk::awaitRequests() {
  pollfd end{witness, POLLIN, 0};
  KJ_ASSERT(poll(&end, 1, 60000) == 1 && (end.revents & POLLHUP), "its requests do not end");
}

void MortalDisk::kill() {
  process().child().kill();
  process().waitForExit();
  awaitRequests();
  life = nullptr;
}

int MortalDisk::waitForExit() {
  int status = process().waitForExit();
  awaitRequests();
  life = nullptr;
  return status;
}

void MortalDisk::end() {
  process().disconnect();
  int status = waitForExit();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace troupe::blk::testing
