#include "guest/payload/disk.h"

#include "guest/payload/memory.h"

namespace payload {
namespace {

constexpr uint64_t FEATURE_RO = 1 << 5;  // §5.2.3
constexpr uint64_t FEATURE_FLUSH = 1 << 9;
constexpr unsigned CONFIG_CAPACITY = 0;  // §5.2.4

uint16_t powerOfTwoAtLeast(unsigned value) {
  unsigned result = 1;
  while (result < value && result < 32768) {
    result *= 2;
  }
  return result;
}

}  // namespace

bool Disk::start(const DriverContext& context, const PciFunction& function, Completion completion,
                 unsigned slotsWanted) {
  device = VirtioDevice();
  if (!device.attach(context, function) || !device.negotiate(FEATURE_RO | FEATURE_FLUSH)) {
    return false;
  }
  indirect = device.has(FEATURE_INDIRECT_DESC);
  unsigned perSlot = indirect ? 1 : CHAIN;
  // Not less than a driver in earnest would take.
  unsigned descriptors = slotsWanted * perSlot < 256 ? 256 : slotsWanted * perSlot;
  if (!device.addQueue(0, powerOfTwoAtLeast(descriptors), completion, ring)) {
    return false;
  }
  slots = ring.size() / perSlot;
  memory = static_cast<Slot*>(allocate(slots * sizeof(Slot)));
  capacity = device.config<uint32_t>(CONFIG_CAPACITY) |
             static_cast<uint64_t>(device.config<uint32_t>(CONFIG_CAPACITY + 4)) << 32;
  return slots && memory && device.start();
}

bool Disk::readOnly() const {
  return device.has(FEATURE_RO);
}

bool Disk::canFlush() const {
  return device.has(FEATURE_FLUSH);
}

void Disk::prepare(unsigned slot, uint32_t type, void* buffer, uint32_t length, bool split) {
  Slot& own = memory[slot];
  uint16_t base = indirect ? 0 : slot * CHAIN;
  Descriptor* chain = indirect ? own.table : &ring.descriptor(base);
  uint16_t direction = type == BLK_T_OUT ? 0 : DESCRIPTOR_WRITE;
  unsigned count = 0;
  auto add = [&](const volatile void* start, uint32_t size, uint16_t flags) {
    uint16_t after = base + count + 1;
    chain[count++] = {reinterpret_cast<uint64_t>(start), size,
                      static_cast<uint16_t>(flags | DESCRIPTOR_NEXT), after};
  };

  own.header = {type, 0, 0};
  own.status = BLK_S_NONE;
  add(&own.header, sizeof(own.header), 0);
  uint32_t first = split && length > SECTOR ? SECTOR : length;
  if (first) {
    add(buffer, first, direction);
  }
  if (length > first) {
    add(static_cast<char*>(buffer) + first, length - first, direction);
  }
  add(&own.status, 1, DESCRIPTOR_WRITE);
  chain[count - 1].flags &= ~DESCRIPTOR_NEXT;
  if (indirect) {
    ring.descriptor(slot) = {reinterpret_cast<uint64_t>(own.table),
                             static_cast<uint32_t>(count * sizeof(Descriptor)), DESCRIPTOR_INDIRECT,
                             0};
  }
}

void Disk::offer(unsigned slot, uint64_t sector) {
  memory[slot].header.sector = sector;
  memory[slot].status = BLK_S_NONE;
  ring.offer(indirect ? slot : slot * CHAIN);
}

void Disk::publish() {
  device.publish(ring, 0);
}

unsigned Disk::finished() {
  unsigned slot = ring.take().id / (indirect ? 1 : CHAIN);
  return slot < slots ? slot : 0;
}

uint8_t Disk::run(uint32_t type, uint64_t sector, void* buffer, uint32_t length) {
  prepare(0, type, buffer, length);
  offer(0, sector);
  publish();
  if (!await(Completion::POLL)) {
    return BLK_S_NONE;
  }
  return status(finished());
}

bool Disk::marked() {
  auto sector = static_cast<uint8_t*>(allocate(SECTOR));
  return sector && run(BLK_T_IN, 0, sector, SECTOR) == BLK_S_OK &&
         memcmp(sector, SCRATCH_MARK, sizeof(SCRATCH_MARK) - 1) == 0;
}

}  // namespace payload
