#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "devices/virtio/virtqueue.h"
#include "tests/fuzz/op.h"

namespace troupe::fuzz {

// A request as a driver of one kind of device makes it: bytes to read, then room to be written.
struct RequestTemplate {
  std::vector<kj::byte> header;
  uint32_t readable = 0;  // bytes of data behind the header
  uint32_t writable = 0;
  uint32_t tail = 0;   // writable bytes in a buffer of their own, at the end
  uint8_t pieces = 1;  // into how many buffers the data is split
  uint32_t cut = 0;    // the header's first `cut` bytes are a buffer of their own
};

// One kind of device, as a fuzz target has it: its request parser and its engine without threads,
// fds and system calls.
class FuzzedDevice {
 public:
  virtual ~FuzzedDevice() noexcept(false) = default;

  // The most each of its queues may hold, and the device's features.
  virtual std::vector<uint16_t> queueSizes() = 0;
  virtual uint64_t features() = 0;
  // Bits of features that are none: they say which device of several this is, and are off at first.
  virtual uint64_t choices() { return 0; }

  // The guest's memory, once, before the first start().
  virtual void use(const virtio::GuestMemory&) {}

  // `rings` has an entry for each queue, null where the driver enabled none. They live until
  // stop().
  virtual void start(uint64_t features, const std::vector<virtio::Virtqueue*>& rings) = 0;
  virtual void stop() = 0;

  // Serves `queue` as if it had been notified: one turn.
  virtual void kick(uint16_t queue) = 0;

  // What a driver of this device would ask for; `op` chooses and spoils.
  virtual void request(const Op& op, RequestTemplate& request) = 0;

  virtual void event(const Op& /*op*/) {}
  virtual void config(const Op& /*op*/) {}

  // Ends what is under way on the host side, so that after some turns every request is answered.
  virtual void settle() {}
  // How many turns that takes at most.
  virtual int turnsToSettle() { return 64; }
  // Whether `queue` may keep the driver's buffers until it has something for them.
  virtual bool keepsBuffers(uint16_t /*queue*/) { return false; }

  // A chain left `queue`, and came back with `written` bytes stored: for a target that knows what
  // the answer has to be. The pieces are the guest's, as they are now.
  virtual void taken(uint16_t /*queue*/, uint16_t /*head*/, kj::ArrayPtr<const iovec> /*readable*/,
                     kj::ArrayPtr<const iovec> /*writable*/) {}
  virtual void returned(uint16_t /*queue*/, uint16_t /*head*/, uint32_t /*written*/) {}

  // The most bytes one turn may ask of the heap.
  virtual size_t allocationBound() { return 0; }
};

}  // namespace troupe::fuzz
