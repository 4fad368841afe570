#pragma once

#include <kj/common.h>

#include <cstdint>

#include "devices/balloon/kept_balloon.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::balloon {

// The statistics queue (§5.5.6.3): the driver's buffer is kept, and given back when new numbers are
// wanted. Knows no fd and no event loop.
class StatisticsQueue {
 public:
  static constexpr size_t MOST = KeptStatistics::MOST;

  // `said`: what the driver has told so far, to a process before this one maybe. Outlives it.
  StatisticsQueue(virtio::Virtqueue& ring, KeptStatistics& said) : ring(ring), said(said) {
    if (said.count > MOST) said.count = 0;
  }

  // Takes what the driver made available: the last buffer is read and kept, others are pushed back.
  void turn();

  // Pushes the buffer that is kept, for the driver to fill anew; false when it has one already.
  bool ask();

  // Buffers read so far.
  uint64_t updates() const { return read; }
  // Whether a process before this one had taken the last one already.
  bool isReadAgain() const { return wasLeftBehind; }
  // Of the last one.
  kj::ArrayPtr<const Statistic> statistics() const { return kj::arrayPtr(said.last, said.count); }

 private:
  void parse(virtio::Chain& chain);

  virtio::Virtqueue& ring;
  kj::Maybe<virtio::Chain> kept;
  KeptStatistics& said;
  uint64_t read = 0;
  bool wasLeftBehind = false;
};

}  // namespace troupe::balloon
