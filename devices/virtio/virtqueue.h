#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/virtio/guest_memory.h"

namespace troupe::virtio {

// Where one split virtqueue lies (§2.7), as the driver said at DRIVER_OK: unchecked.
struct RingLayout {
  uint16_t size;  // descriptors
  uint64_t descriptorTable;
  uint64_t availableRing;
  uint64_t usedRing;
};

// What was negotiated that changes how a ring is read.
struct RingFeatures {
  bool indirectDescriptors;  // VIRTIO_F_INDIRECT_DESC (§2.7.5.3)
  bool eventIndex;           // VIRTIO_F_EVENT_IDX (§2.7.7, §2.7.10)
};

class Virtqueue;

// One descriptor chain taken from the available ring (§2.7.4): first the device-readable bytes, then
// the device-writable ones, as pieces of mapped guest RAM. Every descriptor was read once and
// checked before this object existed; the buffers behind it are still the guest's to change.
//
// A cheap value that may be moved into a request table and pushed later, in any order. It borrows
// storage of its Virtqueue, which has room for every head at once: nothing is allocated per chain.
class Chain {
 public:
  uint16_t head() const { return headIndex; }

  // What is left to read and to write. iov_base points into guest RAM, for system calls only.
  kj::ArrayPtr<const iovec> readable() const;
  kj::ArrayPtr<const iovec> writable() const;
  uint64_t readableBytes() const { return readableLeft; }
  uint64_t writableBytes() const { return writableLeft; }

  // Takes the next sizeof(T) readable bytes, however the driver split them over descriptors, into a
  // private copy. False (and nothing taken) when fewer are left.
  template <typename T>
  bool read(T& copy) {
    static_assert(std::is_trivially_copyable<T>::value, "wire types only");
    return readBytes(kj::arrayPtr(reinterpret_cast<kj::byte*>(&copy), sizeof(T)));
  }
  bool readBytes(kj::ArrayPtr<kj::byte> copy);

  // Stores `bytes` at the front of what is left to write; false (and nothing stored) when too long.
  bool writeBytes(kj::ArrayPtr<const kj::byte> bytes);

  // Takes the last `size` writable bytes off the end, split or not, so that what remains is data:
  // for a status byte behind it. They are stored later with writeTail(). False when fewer are left.
  bool reserveTail(uint32_t size);
  void writeTail(kj::ArrayPtr<const kj::byte> bytes);

  // Moves past `size` writable bytes that a system call filled through writable().
  void advanceWritable(uint64_t size);

 private:
  friend class Virtqueue;
  Chain() = default;
  // Cursor fields and the pointer to this head's piece storage: the implementer's.
  uint16_t headIndex = 0;
  uint64_t readableLeft = 0;
  uint64_t writableLeft = 0;
};

// The device's side of one split virtqueue (§2.7). See STYLE for its contract; single-threaded.
class Virtqueue {
 public:
  // Throws if a ring is not wholly inside `memory`, which must outlive this object, or if a ring is
  // misaligned (§2.7). `layout.size` counts descriptors: a power of two, at most 32768.
  Virtqueue(const GuestMemory& memory, const RingLayout& layout, RingFeatures features);
  ~Virtqueue();
  KJ_DISALLOW_COPY(Virtqueue);

  // The next available chain; none when the ring is empty or broken().
  kj::Maybe<Chain> pop();

  // True when pop() would find something: one load of the available index. For a spinning reader.
  bool hasWork() const;

  // Returns `chain` to the driver (§2.7.8). `written`: bytes stored, from its first writable byte.
  // The driver sees it after publish().
  void push(Chain&& chain, uint32_t written);

  // Makes all pushed chains visible with one store of the used index and says whether the driver
  // wants an interrupt for them (§2.7.7.2): call it once per batch.
  bool publish();

  // Asks the driver for (no) notifications (§2.7.10). After enabling, look at hasWork() again.
  void enableNotifications();
  void disableNotifications();

  // Chains taken and not yet pushed.
  uint32_t inFlight() const;

  // True once the driver has put the ring into a state the spec forbids; only a reset heals it.
  bool broken() const;

  uint16_t size() const;

 private:
  // The implementer's.
};

}  // namespace troupe::virtio
