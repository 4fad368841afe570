#pragma once

#include <stdint.h>

#include "guest/payload/virtio_device.h"

// The driver's side of a memory balloon (virtio 1.2, §5.5).
namespace payload {

constexpr unsigned BALLOON_PAGE = 4096;  // §5.5.6
constexpr uint16_t INFLATE_QUEUE = 0;    // §5.5.2
constexpr uint16_t DEFLATE_QUEUE = 1;

// Zeroed memory with a byte of `value` at the beginning of each page, so that each exists.
uint8_t* touchedMemory(uint64_t bytes, uint8_t value);

// Lists of pages on their way to the device, one at a time.
class PageList {
 public:
  static constexpr unsigned MOST = 256;  // as Linux has it

  // False when there is no memory for it.
  bool create();

  // Tells the device of `count` pages from `memory` on, one each `stride` bytes, in as many lists
  // as it takes. False when it does not give one back in time.
  bool send(VirtioDevice& device, Ring& ring, uint16_t queue, Completion completion,
            const uint8_t* memory, unsigned count, uint64_t stride = BALLOON_PAGE);

 private:
  uint32_t* numbers = nullptr;
};

}  // namespace payload
