#pragma once

#include <kj/common.h>

#include <cstdint>

#include "devices/virtio/virtqueue.h"

namespace troupe::balloon {

// One number the driver tells of its memory (§5.5.6.3).
struct Statistic {
  uint16_t tag;
  uint64_t value;
};

// The statistics queue (§5.5.6.3): the driver's buffer is kept, and given back when new numbers are
// wanted. Knows no fd and no event loop.
class StatisticsQueue {
 public:
  static constexpr size_t MOST =
      64;  // the spec has 10, Linux 16; of what comes behind nothing is read

  explicit StatisticsQueue(virtio::Virtqueue& ring) : ring(ring) {}

  // Takes what the driver made available: the last buffer is read and kept, others are pushed back.
  void turn();

  // Pushes the buffer that is kept, for the driver to fill anew; false when it has one already.
  bool ask();

  // Buffers read so far.
  uint64_t updates() const { return read; }
  // Of the last one.
  kj::ArrayPtr<const Statistic> statistics() const { return kj::arrayPtr(last, count); }

 private:
  void parse(virtio::Chain& chain);

  virtio::Virtqueue& ring;
  kj::Maybe<virtio::Chain> kept;
  Statistic last[MOST];
  size_t count = 0;
  uint64_t read = 0;
};

}  // namespace troupe::balloon
