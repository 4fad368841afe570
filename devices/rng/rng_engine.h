#pragma once

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/common.h>

#include <cstdint>

#include "devices/rng/rng_queue.h"
#include "devices/virtio/device_engine.h"
#include "devices/virtio/rate_limit.h"

namespace troupe::rng {

// What the drivers of a device may draw together, in a second and at once after a rest; 0 a second
// is without limit.
struct RngRate {
  uint64_t bytesPerSecond = 0;
  uint64_t burstBytes = 0;
  uint64_t requestsPerSecond = 0;
  uint64_t burstRequests = 0;
};

// A virtio entropy device (§5.4): one queue of writable buffers, filled by the kernel's generator
// straight into guest memory.
//
// It lives in the main loop: drawing the 64 bytes a guest asks for takes less than waking a thread.
class RngEngine final: public virtio::DeviceEngine {
 public:
  // Throws TRP-rng-001 for a rate that cannot be.
  // `source`: in place of the kernel's generator, for tests; outlives the engine.
  explicit RngEngine(kj::UnixEventPort& events, const RngRate& rate = {},
                     kj::Maybe<RandomSource&> source = nullptr);
  ~RngEngine() noexcept(false);

  virtio::DeviceDescription describe() override;
  void start(const virtio::GuestMemory& memory, uint64_t features,
             kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  kj::Promise<void> stop() override;

 private:
  struct Active;  // the queue, what watches it and the promise that serves it
  kj::UnixEventPort& events;
  kj::Maybe<RandomSource&> source;
  virtio::RateLimit limit;  // of the process: a driver that comes anew finds no full bucket
  kj::Maybe<kj::Own<Active>> active;
};

}  // namespace troupe::rng
