#include "guest/payload/disk.h"

#include "guest/payload/memory.h"

namespace payload {
namespace {

constexpr uint64_t FEATURE_RO = 1 << 5;  // §5.2.3
constexpr uint64_t FEATURE_FLUSH = 1 << 9;
constexpr uint64_t FEATURE_MQ = 1 << 12;
constexpr unsigned CONFIG_CAPACITY = 0;  // §5.2.4
constexpr unsigned CONFIG_NUM_QUEUES = 34;

uint16_t powerOfTwoAtLeast(unsigned value) {
  unsigned result = 1;
  while (result < value && result < 32768) {
    result *= 2;
  }
  return result;
}

}  // namespace

bool Disk::start(const DriverContext& context, const PciFunction& function, Completion completion,
                 unsigned slotsWanted, unsigned queuesWanted) {
  device = VirtioDevice();
  if (!device.attach(context, function) ||
      !device.negotiate(FEATURE_RO | FEATURE_FLUSH | FEATURE_MQ)) {
    return false;
  }
  offeredQueues = device.has(FEATURE_MQ) ? device.config<uint16_t>(CONFIG_NUM_QUEUES) : 1;
  if (queuesWanted > offeredQueues || queuesWanted > VirtioDevice::MAX_QUEUES) {
    return false;
  }
  queues = queuesWanted;
  indirect = device.has(FEATURE_INDIRECT_DESC);
  unsigned perSlot = indirect ? 1 : CHAIN;
  // Not less than a driver in earnest would take.
  unsigned descriptors = (slotsWanted + queues - 1) / queues * perSlot;
  descriptors = descriptors < 256 ? 256 : descriptors;
  unsigned smallest = ~0u;
  for (unsigned i = 0; i < queues; ++i) {
    if (!device.addQueue(i, powerOfTwoAtLeast(descriptors), completion, rings[i])) {
      return false;
    }
    smallest = rings[i].size() < smallest ? rings[i].size() : smallest;
  }
  slots = smallest / perSlot * queues;
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
  Ring& ring = ringOf(slot);
  uint16_t base = indirect ? 0 : headOf(slot);
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
    ring.descriptor(headOf(slot)) = {reinterpret_cast<uint64_t>(own.table),
                                     static_cast<uint32_t>(count * sizeof(Descriptor)),
                                     DESCRIPTOR_INDIRECT, 0};
  }
}

void Disk::offer(unsigned slot, uint64_t sector) {
  memory[slot].header.sector = sector;
  memory[slot].status = BLK_S_NONE;
  ringOf(slot).offer(headOf(slot));
}

void Disk::publish() {
  for (unsigned i = 0; i < queues; ++i) {
    device.publish(rings[i], i);
  }
}

bool Disk::hasFinished() const {
  for (unsigned i = 0; i < queues; ++i) {
    if (rings[i].hasUsed()) {
      return true;
    }
  }
  return false;
}

unsigned Disk::finished() {
  unsigned queue = 0;
  while (queue + 1 < queues && !rings[queue].hasUsed()) {
    ++queue;
  }
  unsigned slot = rings[queue].take().id / (indirect ? 1 : CHAIN) * queues + queue;
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
