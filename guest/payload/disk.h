#pragma once

#include <stdint.h>

#include "guest/payload/virtio_device.h"

// One virtio-blk device (virtio 1.2, §5.2) with a fixed number of request slots.
namespace payload {

constexpr uint32_t BLK_T_IN = 0;  // §5.2.6
constexpr uint32_t BLK_T_OUT = 1;
constexpr uint32_t BLK_T_FLUSH = 4;
constexpr uint32_t BLK_T_GET_ID = 8;

constexpr uint8_t BLK_S_OK = 0;
constexpr uint8_t BLK_S_IOERR = 1;
constexpr uint8_t BLK_S_UNSUPP = 2;
constexpr uint8_t BLK_S_NONE = 0xff;  // ours: no answer yet

constexpr unsigned SECTOR = 512;
constexpr unsigned BLK_ID_BYTES = 20;

// In the first bytes of a disk that may be overwritten, its first sector excepted.
constexpr char SCRATCH_MARK[] = "TROUPE-SCRATCH";

class Disk {
 public:
  // Resets the device and brings it up with at least `slots` slots, or as many as fit, spread over
  // `queues` queues. False also when it does not have so many queues.
  bool start(const DriverContext& context, const PciFunction& function, Completion completion,
             unsigned slots, unsigned queues = 1);

  unsigned slotCount() const { return slots; }
  // How many queues the device has, as far as it was asked.
  unsigned queuesOffered() const { return offeredQueues; }
  uint64_t sectors() const { return capacity; }
  bool readOnly() const;
  bool canFlush() const;
  VirtioDevice& virtioDevice() { return device; }
  Ring& virtioRing() { return rings[0]; }

  // Fixes what requests in `slot` do: `length` bytes of data, read into or written from `buffer`.
  // Data of more than a sector is split over two descriptors when `split`.
  void prepare(unsigned slot, uint32_t type, void* buffer, uint32_t length, bool split = false);
  // Queues the request of `slot` for `sector`; which queue it takes lies in the slot.
  void offer(unsigned slot, uint64_t sector);
  void publish();
  bool hasFinished() const;
  // Waits for a request; false after the time-out.
  bool await(Completion completion) { return device.await(rings, queues, completion); }
  // The slot of a request that ended, after await() or hasFinished() said so.
  unsigned finished();
  uint8_t status(unsigned slot) const { return memory[slot].status; }

  // One request alone, in slot 0; BLK_S_NONE when it does not end.
  uint8_t run(uint32_t type, uint64_t sector, void* buffer, uint32_t length);

  // Whether the disk says of itself that it may be overwritten. Uses slot 0.
  bool marked();

 private:
  static constexpr unsigned CHAIN = 4;  // header, data, more data, status

  // What the device reads and writes besides data, of one slot.
  struct Slot {
    Descriptor table[CHAIN];
    struct {
      uint32_t type;
      uint32_t reserved;
      uint64_t sector;
    } header;
    volatile uint8_t status;
  };

  Ring& ringOf(unsigned slot) { return rings[slot % queues]; }
  // The head of a slot's chain in its ring's table.
  uint16_t headOf(unsigned slot) const { return slot / queues * (indirect ? 1 : CHAIN); }

  VirtioDevice device;
  Ring rings[VirtioDevice::MAX_QUEUES];
  unsigned queues = 1;
  unsigned offeredQueues = 1;
  Slot* memory = nullptr;
  unsigned slots = 0;
  uint64_t capacity = 0;
  bool indirect = false;
};

}  // namespace payload
