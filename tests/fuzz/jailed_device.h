#pragma once

#include <kj/memory.h>
#include <kj/string.h>

#include <cstdint>
#include <vector>

#include "devices/virtio/testing/fake_ram.h"
#include "devices/virtio/testing/process_bench.h"
#include "tests/fuzz/fuzzed_device.h"

namespace troupe::fuzz {

// One kind of device as it ships, in its jail, with what it needs of the host.
class JailedDevice {
 public:
  virtual ~JailedDevice() noexcept(false) = default;

  virtual std::vector<uint16_t> queueSizes() = 0;
  virtual uint64_t features() = 0;

  // A new process, with `more` beside the fds it needs.
  using Fds = std::vector<virtio::testing::HandedFd>;
  virtual kj::Own<virtio::testing::ProcessBench> start(virtio::testing::FakeRam& ram, Fds more) = 0;

  virtual void request(const Op& op, RequestTemplate& request) = 0;
  // A request that a device that is well answers, and the queue it belongs to.
  virtual Op goodRequest() = 0;
  virtual uint16_t goodQueue() { return 0; }
  // Whether it looks at what is made available in `queue` without more ado; others first need
  // something from the host.
  virtual bool looksAtOnce(uint16_t /*queue*/) { return true; }
  // Whether it has guest RAM to read alone, and the broker stores for it.
  virtual bool readsOnly() { return false; }
};

// `name`: "balloon", "rng", "console", "net", "blk" or "vsock"; null for any other.
kj::Own<JailedDevice> jailedDevice(kj::StringPtr name);

}  // namespace troupe::fuzz
