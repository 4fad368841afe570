#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/virtio/flight_log.h"
#include "devices/virtio/wire.h"

namespace troupe::virtio {

// How many bytes they are.
uint64_t sizeOf(kj::ArrayPtr<const iovec> pieces);

// Copies `copy.size()` bytes of `pieces`, from the byte `skip` on, as far as there are so many.
void copyFrom(kj::ArrayPtr<const iovec> pieces, uint64_t skip, kj::ArrayPtr<kj::byte> copy);

// FNV-1a over the first `bytes` bytes. Tells honest mistakes apart, no more.
uint64_t sumOf(kj::ArrayPtr<const iovec> pieces, uint64_t bytes);

// One queue's part in a FlightLog, from an activation to the reset. Only queues that are recorded
// have one. Belongs to the queue's thread.
class QueueFlight {
 public:
  // `log` outlives this.
  QueueFlight(FlightLog& log, uint16_t queue, uint16_t size);
  KJ_DISALLOW_COPY(QueueFlight);

  // From the ring: a look for a chain begins, meets a head, perhaps of the process before, reads
  // descriptors, and has found a chain, or has found the ring broken.
  void lookBegins() { look = Look{}; }
  void leftBehind() { look.leftBehind = true; }
  void head(uint16_t head) { look.head = head; }
  void descriptor(bool inIndirect, uint32_t index, const Descriptor& descriptor);
  void taken(kj::ArrayPtr<const iovec> readable, kj::ArrayPtr<const iovec> writable);
  void refused();
  // Before the driver can see it.
  void answered(uint16_t head, uint32_t written);

  // From the device, about a chain it has: a call to its host is over.
  struct Call {
    HostCall::Kind kind;
    uint64_t offset = 0;
    uint64_t bytes = 0;
    bool durable = false;
    bool allocating = false;
    // What goes to the host; `result` bytes of it did.
    kj::ArrayPtr<const iovec> outgoing = nullptr;
  };
  void called(uint16_t head, const Call& call, int64_t result);

  // Of a device that is replayed: what the host said to the call for `head` that would come next.
  // One that was not made then fails with EPROTO.
  bool isReplaying() const { return log.isReplaying(); }
  HostAnswer answer(uint16_t head) const;

 private:
  struct SeenOne {
    Descriptor descriptor;
    uint32_t index;
    bool inIndirect;
  };
  // Of a chain in flight.
  struct Flying {
    uint64_t number = 0;
    uint32_t calls = 0;
    kj::Array<iovec> writable;
    uint64_t writableBytes = 0;
  };
  struct Look {
    kj::Maybe<uint16_t> head;
    size_t descriptors = 0;
    bool leftBehind = false;
  };
  void describe(TakenChain::Builder chain);

  FlightLog& log;
  const uint16_t queue;
  kj::Array<Flying> flying;  // by head
  kj::Array<SeenOne> descriptors;
  Look look;
  uint64_t& number;  // of the last chain
};

}  // namespace troupe::virtio
