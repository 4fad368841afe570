#pragma once

#include <kj/common.h>

#include <cstdint>

#include "devices/blk/blk_wire.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::blk {

// Limits the device announces (§5.2.4) and holds requests to: a request moves at most their
// product, 63.5 MiB, so that even the largest is over before anybody who waits for the queue grows
// impatient.
constexpr uint16_t QUEUE_SIZE = 256;
constexpr uint32_t SEG_MAX = QUEUE_SIZE - 2;  // header and status take a descriptor each
constexpr uint32_t SIZE_MAX_BYTES = 256 << 10;
constexpr uint64_t MAX_REQUEST_BYTES = uint64_t(SEG_MAX) * SIZE_MAX_BYTES;
// One range a request. What is discarded costs the host no transfer; zeroes may have to be written.
constexpr uint64_t MAX_DISCARD_BYTES = 1ull << 30;
constexpr uint64_t MAX_ZEROES_BYTES = 32ull << 20;

// What a request is checked against.
struct DiskShape {
  uint64_t bytes;       // a multiple of blockBytes
  uint32_t blockBytes;  // the smallest unit the file takes: 512 or a multiple of it
  bool readOnly;
};

// A request after every check that needs no I/O: what it asks for can be tried as it is.
struct Request {
  enum class Kind : uint8_t {
    READ,                  // `bytes` bytes from `offset` on, into what is writable of the chain
    WRITE,                 // `bytes` bytes to `offset`, out of what is readable
    FLUSH,                 //
    GET_ID,                // into what is writable
    DISCARD,               // what `bytes` bytes from `offset` on hold does not matter any more
    ZEROES,                // they are zero from now on; the host may give their place back
    ZEROES_KEEPING_PLACE,  // the same, but it may not
    REFUSED                // answered with `status`
  };
  Kind kind;
  uint8_t status;  // with REFUSED
  uint32_t bytes;
  uint64_t offset;
};

// Takes the header and the place of the status byte off `chain`, so that what is left is data, and
// says what is asked (§5.2.6). None when there is no room for a status: nothing can be answered.
kj::Maybe<Request> parse(virtio::Chain& chain, const DiskShape& shape);

}  // namespace troupe::blk
