#pragma once

#include <stdint.h>

// The driver's side of one split virtqueue (virtio 1.2, §2.7).
namespace payload {

constexpr uint16_t DESCRIPTOR_NEXT = 1;
constexpr uint16_t DESCRIPTOR_WRITE = 2;
constexpr uint16_t DESCRIPTOR_INDIRECT = 4;

struct Descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
static_assert(sizeof(Descriptor) == 16, "layout fixed by §2.7.5");

struct UsedElement {
  uint32_t id;
  uint32_t length;
};
static_assert(sizeof(UsedElement) == 8, "layout fixed by §2.7.8");

class Ring {
 public:
  // Takes zeroed memory for `size` descriptors; false when there is none. Interrupts are unwanted.
  bool create(uint16_t size, bool eventIndex);

  uint16_t size() const { return ringSize; }
  uint64_t descriptorArea() const { return reinterpret_cast<uint64_t>(descriptors); }
  uint64_t driverArea() const { return reinterpret_cast<uint64_t>(available); }
  uint64_t deviceArea() const { return reinterpret_cast<uint64_t>(usedRing); }

  Descriptor& descriptor(uint16_t index) { return descriptors[index]; }

  // Puts the chain that starts at `head` on the available ring; the device sees it after publish().
  void offer(uint16_t head);

  // Shows the device what was offered, if anything. True when it asks to be notified of that
  // (§2.7.10).
  bool publish();

  // Whether take() has something.
  bool hasUsed() const;
  UsedElement take();

  // Asks for an interrupt with the next used chain. Look at hasUsed() once more before sleeping.
  void wantInterrupt();
  void refuseInterrupts();

 private:
  Descriptor* descriptors = nullptr;
  volatile uint16_t* available = nullptr;  // flags, index, ring[size], used_event (§2.7.6)
  volatile uint16_t* usedRing = nullptr;   // flags, index, ring[size], avail_event (§2.7.8)
  uint16_t ringSize = 0;
  bool eventIndex = false;
  bool refusing = true;
  uint16_t offered = 0;    // free-running index of the next entry to fill
  uint16_t published = 0;  // what the device was shown
  uint16_t taken = 0;      // free-running index of the next used entry to read

  volatile uint16_t& usedEvent() { return available[2 + ringSize]; }
  uint16_t availableEvent() const { return usedRing[2 + 4 * ringSize]; }
};

}  // namespace payload
