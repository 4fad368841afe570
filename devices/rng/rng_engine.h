#pragma once

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/common.h>

#include <cstdint>

#include "devices/virtio/device_engine.h"

namespace troupe::rng {

// The most random bytes one request gets: what a guest can make us draw with one descriptor is
// bounded, and the used length tells it what it got (§5.4.6: the driver takes what is there).
constexpr uint32_t MAX_BYTES_PER_REQUEST = 64 << 10;

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
