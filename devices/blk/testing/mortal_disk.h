#pragma once

#include <capnp/message.h>
#include <kj/function.h>
#include <kj/io.h>
#include <kj/vector.h>

#include <chrono>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/testing/checking_driver.h"
#include "devices/virtio/testing/process_bench.h"

namespace troupe::blk::testing {

// A disk whose processes are killed, one after the other, with what outlives them: its files, its
// journals, the memory it keeps. The test is troupe and broker.
class MortalDisk {
 public:
  // Configure it and hand it its fds before the first process.
  explicit MortalDisk(CheckingDriver& driver);
  KJ_DISALLOW_COPY(MortalDisk);

  BlkConfig::Builder config() { return message.getRoot<BlkConfig>(); }
  void hand(kj::StringPtr name, kj::uint index, kj::AutoCloseFd fd);
  // The memory that it keeps beside its journals, `bytes` of zeroes. Returns the fd, a loan.
  int keep(uint64_t bytes);
  int journal() const { return journals; }

  // Starts a process, which goes on where the one before was killed. Throws what it refuses.
  void begin();
  virtio::testing::ProcessBench& process() { return *KJ_ASSERT_NONNULL(life); }
  // Lets the driver work with it for so long, or until it has nothing under way. Returns how many
  // milliseconds the first answer took, from begin() on; negative without one.
  double serveFor(std::chrono::microseconds time);
  double serveUntilIdle();
  // Returns once it is gone with the last request it had in the kernel.
  void kill();
  // The broker leaves, as at the end of a VM, and the process ends in order.
  void end();
  // The status of one that begin() has thrown of.
  int waitForExit();

 private:
  double serve(kj::Function<bool()> goesOn);
  void awaitRequests();

  CheckingDriver& driver;
  capnp::MallocMessageBuilder message;
  kj::Vector<kj::AutoCloseFd> files;
  kj::Vector<virtio::testing::HandedFd> fds;
  kj::AutoCloseFd journals;
  kj::AutoCloseFd witness;
  kj::Maybe<kj::Own<virtio::testing::ProcessBench>> life;
  std::chrono::steady_clock::time_point begun;
  bool isFirst = true;
};

}  // namespace troupe::blk::testing
