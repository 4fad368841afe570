#pragma once

#include <kj/memory.h>

#include <string>
#include <vector>

#include "tests/fuzz/coverage.h"
#include "tests/fuzz/guest_driver.h"
#include "tests/fuzz/jailed_device.h"
#include "tests/fuzz/process_usage.h"
#include "tests/fuzz/racer.h"

namespace troupe::fuzz {

// Broker and driver of one device in its jail, over the real pipe, eventfds and memory: does what
// operations say, and looks whether the process is well.
class JailedDriver {
 public:
  explicit JailedDriver(JailedDevice& device);

  // One input. Empty when all went well, otherwise what did not.
  std::string run(const std::vector<Op>& ops);

  uint64_t processes() const { return processCount; }
  uint64_t racedWrites() const { return racer.writes(); }
  // What the last input reached; none without --config=cover.
  kj::ArrayPtr<const kj::byte> reached() const { return counts; }

 private:
  // The guest's view of RAM that the device maps too.
  class SharedSpace final: public GuestSpace {
   public:
    explicit SharedSpace(virtio::testing::FakeRam& ram);
    // What a session leaves in the rings and behind them.
    void clear();
  };

  void launch();
  void session(const std::vector<Op>& ops);
  void perform(GuestDriver& driver, const Op& op);
  void activate(GuestDriver& driver, uint64_t features);
  void goodAnswer();
  void look();
  std::string ending();

  JailedDevice& device;
  const std::vector<uint16_t> sizes;
  kj::Own<virtio::testing::FakeRam> ram;
  SharedSpace space;
  kj::ArrayPtr<kj::byte> counts;
  kj::Own<virtio::testing::ProcessBench> bench;
  Racer racer;
  Usage usage{};
  uint64_t inputs = 0;
  uint64_t processCount = 0;
};

}  // namespace troupe::fuzz
