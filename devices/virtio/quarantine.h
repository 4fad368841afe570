#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

namespace troupe::virtio {

// What is kept of a request that several processes of a device died of, for people to look at.
struct QuarantinedRequest {
  static constexpr size_t MOST_BYTES = 4000;
  uint64_t sequence;       // of the order in which the queue's chains were taken
  uint64_t readableBytes;  // that the driver gave the device to read
  uint64_t writableBytes;
  uint32_t keptBytes;  // of those to read, the first
  uint16_t queue;
  uint16_t head;
};

// The last few such requests, in memory that outlives the process: written by any thread of it, and
// read by `troupe`, which believes nothing that stands there.
class Quarantine {
 public:
  // `memory`: aligned to 8, zero or written by another Quarantine.
  explicit Quarantine(kj::ArrayPtr<kj::byte> memory);
  KJ_DISALLOW_COPY(Quarantine);

  // `request.keptBytes` is set here: the first bytes of `readable`, which lie in guest memory.
  void keep(QuarantinedRequest request, kj::ArrayPtr<const iovec> readable);

  // How many were ever kept.
  uint64_t count() const;

  // The request with this number, from 0 on, and its bytes; none when it is not there any more, or
  // not yet, or makes no sense.
  struct Kept {
    QuarantinedRequest request;
    kj::Array<kj::byte> bytes;
  };
  kj::Maybe<Kept> read(uint64_t number) const;

  // Of how many requests there is room for the bytes.
  uint64_t capacity() const { return slots; }

 private:
  static constexpr size_t HEADER = 64;
  struct Slot {
    uint64_t done;  // the number of its request, plus 1
    QuarantinedRequest request;
    kj::byte bytes[QuarantinedRequest::MOST_BYTES];
  };
  Slot* slotOf(uint64_t number) const;

  kj::byte* const memory;
  const uint64_t slots;
};

}  // namespace troupe::virtio
