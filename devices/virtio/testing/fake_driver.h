#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/vector.h>

#include <cstdint>
#include <initializer_list>

#include "devices/virtio/testing/fake_ram.h"
#include "devices/virtio/virtqueue.h"
#include "devices/virtio/wire.h"

namespace troupe::virtio::testing {

// One buffer of a chain, at a guest address.
struct Buffer {
  uint64_t address;
  uint32_t length;
  bool writable;
};
inline Buffer readable(uint64_t address, uint32_t length) {
  return {address, length, false};
}
inline Buffer writable(uint64_t address, uint32_t length) {
  return {address, length, true};
}

// The driver's side of one split virtqueue, in fake RAM. The upper half of its methods is a driver
// that keeps the rules; the lower half writes any word of the ring, for drivers that do not.
class FakeDriver {
 public:
  FakeDriver(FakeRam& ram, uint16_t size, RingFeatures features = {true, true});

  RingLayout layout() const { return where; }
  uint16_t size() const { return where.size; }
  RingFeatures ringFeatures() const { return features; }

  // Allocates `bytes` in RAM and copies them there (a writable buffer keeps the poison).
  Buffer readableBuffer(kj::ArrayPtr<const kj::byte> bytes);
  Buffer writableBuffer(uint32_t length);

  // Makes a chain of free descriptors available and returns its head. add() throws when too few are
  // free; addIndirect() takes one for a table of its own.
  uint16_t add(kj::ArrayPtr<const Buffer> buffers);
  uint16_t add(std::initializer_list<Buffer> buffers) {
    return add(kj::arrayPtr(buffers.begin(), buffers.size()));
  }
  uint16_t addIndirect(kj::ArrayPtr<const Buffer> buffers);
  uint16_t addIndirect(std::initializer_list<Buffer> buffers) {
    return addIndirect(kj::arrayPtr(buffers.begin(), buffers.size()));
  }

  // Whether the device wants to hear of what was added since this was last asked (§2.7.10).
  bool shouldKick();

  // What the device returned next, its descriptors free again.
  struct Used {
    uint32_t head;
    uint32_t written;
  };
  kj::Maybe<Used> takeUsed();

  // With event idx: an interrupt when the used index passes the next one (or not before it went all
  // the way round). Without: the NO_INTERRUPT flag.
  void wantInterrupts(bool wanted);

  // Words of the ring, raw.
  void writeDescriptor(uint16_t index, const Descriptor& descriptor);
  Descriptor readDescriptor(uint16_t index) const;
  void writeAvailable(uint16_t slot, uint16_t head);  // ring[slot]
  void writeAvailableIndex(uint16_t index);
  void writeAvailableFlags(uint16_t flags);
  void writeUsedEvent(uint16_t index);
  uint16_t availableIndex() const { return nextAvailable; }
  uint16_t usedIndex() const;
  uint16_t usedFlags() const;
  uint16_t availableEvent() const;
  Used usedElement(uint16_t slot) const;

  // Puts `head` into the next available slot and advances the index, whatever `head` is.
  void makeAvailable(uint16_t head);

 private:
  uint16_t takeFree();
  void giveBack(uint16_t head);

  FakeRam& ram;
  RingFeatures features;
  RingLayout where;
  kj::byte* descriptors;
  kj::byte* available;
  kj::byte* used;
  kj::Vector<uint16_t> freeDescriptors;
  kj::Array<kj::Vector<uint16_t>> chains;  // by head
  uint16_t nextAvailable = 0;
  uint16_t nextUsed = 0;
  uint16_t kickedUpTo = 0;
};

}  // namespace troupe::virtio::testing
