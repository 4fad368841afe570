#pragma once

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/common.h>

#include <cstdint>

#include "devices/rng/rng_queue.h"
#include "devices/virtio/device_engine.h"

namespace troupe::rng {

// A virtio entropy device (§5.4): one queue of writable buffers, filled by the kernel's generator
// straight into guest memory.
//
// It lives in the main loop: drawing the 64 bytes a guest asks for takes less than waking a thread.
class RngEngine final: public virtio::DeviceEngine {
 public:
  explicit RngEngine(kj::UnixEventPort& events);
  ~RngEngine() noexcept(false);

  virtio::DeviceDescription describe() override;
  void start(const virtio::GuestMemory& memory, uint64_t features,
             kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  kj::Promise<void> stop() override;

 private:
  struct Active;  // the queue, what watches it and the promise that serves it
  kj::UnixEventPort& events;
  kj::Maybe<kj::Own<Active>> active;
};

}  // namespace troupe::rng
