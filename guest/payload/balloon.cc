#include "guest/payload/balloon.h"

#include "guest/payload/memory.h"

namespace payload {

uint8_t* touchedMemory(uint64_t bytes, uint8_t value) {
  auto memory = static_cast<uint8_t*>(allocate(bytes));
  if (memory) {
    for (uint64_t i = 0; i < bytes; i += BALLOON_PAGE) {
      *const_cast<volatile uint8_t*>(memory + i) = value;
    }
  }
  return memory;
}

bool PageList::create() {
  numbers = static_cast<uint32_t*>(allocate(MOST * sizeof(uint32_t)));
  return numbers;
}

bool PageList::send(VirtioDevice& device, Ring& ring, uint16_t queue, Completion completion,
                    const uint8_t* memory, unsigned count, uint64_t stride) {
  uint64_t address = reinterpret_cast<uint64_t>(memory);
  for (unsigned done = 0; done < count;) {
    unsigned length = count - done < MOST ? count - done : MOST;
    for (unsigned i = 0; i < length; ++i, address += stride) {
      numbers[i] = address / BALLOON_PAGE;
    }
    ring.descriptor(0) = {reinterpret_cast<uint64_t>(numbers), uint32_t(length * sizeof(uint32_t)),
                          0, 0};
    ring.offer(0);
    if (completion == Completion::INTERRUPT) {
      if (!device.publishForInterrupt(ring, queue)) {
        return false;
      }
    } else {
      device.publish(ring, queue);
      if (!device.await(ring, Completion::POLL)) {
        return false;
      }
    }
    ring.take();
    done += length;
  }
  return true;
}

}  // namespace payload
