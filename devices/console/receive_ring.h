#pragma once

#include "devices/console/input_queue.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::console {

// The buffers of a receiveq (§5.3.6), filled from an InputQueue. Knows no fd and no event loop.
class ReceiveRing {
 public:
  // Both outlive it.
  ReceiveRing(virtio::Virtqueue& ring, InputQueue& input) : ring(ring), input(input) {}

  // Whether the input is that of a recording: then there is some for every buffer.
  bool isReplaying() const;

  // Fills a bounded number of buffers. NO_INPUT: nothing waits for the guest. NO_BUFFER: something
  // does. MORE: both may be there. BROKEN: only a reset heals the ring.
  enum class Outcome { NO_INPUT, NO_BUFFER, MORE, BROKEN };
  Outcome serve();

 private:
  Outcome fill();
  uint32_t fillFromInput(virtio::Chain& chain);
  uint32_t fillFromRecording(virtio::Chain& chain);

  virtio::Virtqueue& ring;
  InputQueue& input;
};

}  // namespace troupe::console
