#pragma once

#include <kj/common.h>

#include <cstdint>
#include <vector>

#include "devices/virtio/virtqueue.h"
#include "tests/fuzz/fuzzed_device.h"
#include "tests/fuzz/guest_space.h"
#include "tests/fuzz/op.h"

namespace troupe::fuzz {

// The driver's side of a device's queues, driven by operations: keeps the rules where they do not
// say otherwise, so that a request that is wrong in one place gets as far as that place.
class GuestDriver {
 public:
  // `sizes`: the most each queue may hold.
  GuestDriver(GuestSpace& space, kj::ArrayPtr<const uint16_t> sizes);

  // QUEUE; for the next prepare().
  void choose(const Op& op);

  // Empty rings where they were chosen to be. Forgets what was under way.
  void prepare();
  virtio::RingLayout layout(uint16_t queue) const { return queues[queue].layout; }
  bool isEnabled(uint16_t queue) const { return queues[queue].enabled; }
  uint16_t queueOf(uint8_t a) const { return a % queues.size(); }

  // BUFFER, REQUEST and PUBLISH.
  void addBuffer(const Op& op);
  void addRequest(const RequestTemplate& request);
  void publish(const Op& op);

  // Where POKE and INTERLEAVE write: `size` bytes at an address.
  uint64_t address(const Op& op, uint64_t size);

  // Takes what was used: its descriptors are free again. False when an element cannot be.
  struct Used {
    uint32_t head;
    uint32_t written;
  };
  std::vector<Used> takeUsed(uint16_t queue);

 private:
  struct Pending {
    uint64_t address;
    uint32_t length;
    uint16_t flags;  // WRITE
    uint8_t next;    // how it goes on: 0 to the one behind, else wrong in some way
    uint16_t rawNext;
  };
  struct Queue {
    uint16_t maxSize;
    virtio::RingLayout layout{};
    bool enabled = true;
    uint16_t available = 0;
    uint16_t used = 0;
    // From the next prepare() on.
    uint16_t size = 0;
    bool willBeEnabled = true;
    uint8_t spoiled = 0;  // how its layout is wrong
    uint64_t where = 0;
    std::vector<uint16_t> owners;  // by descriptor: the head it is in a chain of, or FREE
  };

  uint64_t place(Where where, uint64_t raw, uint64_t size);
  uint64_t small(uint64_t size);
  void writeChain(Queue& queue, bool indirect, uint16_t spoil);
  static constexpr uint16_t FREE = 0xffff;
  static constexpr uint16_t TAKEN = 0xfffe;
  uint16_t takeDescriptor(Queue& queue);
  void makeAvailable(Queue& queue, uint16_t head, const Op& op);

  GuestSpace& space;
  std::vector<Queue> queues;
  std::vector<Pending> pending;
  uint64_t nextSmall = 0;
  uint64_t nextTable = 0;
  uint64_t nextData = 0;
};

}  // namespace troupe::fuzz
