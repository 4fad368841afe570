#include "tests/fuzz/guest_driver.h"

#include <algorithm>

namespace troupe::fuzz {
namespace {

using virtio::Descriptor;

constexpr size_t MAX_PENDING = 24;

// Bits of PUBLISH's b: what of a chain is wrong beside its buffers.
constexpr uint16_t SPOIL_TABLE_LENGTH = 1;
constexpr uint16_t SPOIL_TABLE_PLACE = 2;
constexpr uint16_t SPOIL_NESTED = 4;
constexpr uint16_t SPOIL_INDIRECT_NEXT = 8;
constexpr uint16_t SPOIL_HEAD = 16;
constexpr uint16_t SPOIL_INDEX = 32;
constexpr uint16_t SPOIL_EVENT = 64;
constexpr uint16_t SPOIL_FLAGS = 128;

uint32_t length(uint8_t kind, uint32_t raw, uint64_t room) {
  switch (kind % 8) {
    case 0:
      return raw % 4096;
    case 1:
      return 512 * (raw % 16);
    case 2:
      return raw % 18;  // about a header
    case 3:
      return 0;
    case 4:
      return room + raw % 3 - 1;  // up to the end, and one less or more
    case 5:
      return 0x80000000;
    case 6:
      return 0xffffffff;
    default:
      return raw;
  }
}

}  // namespace

GuestDriver::GuestDriver(GuestSpace& space, kj::ArrayPtr<const uint16_t> sizes) : space(space) {
  for (uint16_t size : sizes) {
    Queue queue;
    queue.maxSize = size;
    queue.size = kj::min(size, uint16_t(16));
    queues.push_back(queue);
  }
}

void GuestDriver::choose(const Op& op) {
  Queue& queue = queues[queueOf(op.a)];
  uint32_t shift = op.b % 12;
  queue.size = op.b & 0x100 ? uint16_t(op.d) : kj::min(queue.maxSize, 1u << shift);
  queue.spoiled = op.c & 0xff;
  queue.where = op.d;
  queue.willBeEnabled = (op.b & 0x600) != 0x600;
}

void GuestDriver::prepare() {
  pending.clear();
  nextSmall = nextTable = nextData = 0;
  for (size_t i = 0; i < queues.size(); i++) {
    Queue& queue = queues[i];
    queue.layout.size = queue.size;
    queue.enabled = queue.willBeEnabled;
    uint32_t room = kj::min(uint32_t(queue.layout.size), 256u);
    uint64_t base = i * RING_BLOCK;
    queue.layout.descriptorTable = base;
    queue.layout.availableRing = base + 0x1000;
    queue.layout.usedRing = base + 0x1400;
    if (queue.spoiled != 0) {
      uint64_t* parts[] = {&queue.layout.descriptorTable, &queue.layout.availableRing,
                           &queue.layout.usedRing};
      uint64_t& part = *parts[queue.spoiled / 8 % 3];
      part = place(Where(queue.spoiled % WHERES), queue.where, 16 * room) & ~uint64_t(3);
    }
    static constexpr kj::byte ZEROES[16 * 256] = {};
    auto clear = [&](uint64_t address, uint64_t size) {
      space.write(address, kj::arrayPtr(ZEROES, size));
    };
    clear(queue.layout.descriptorTable, virtio::descriptorTableBytes(room));
    clear(queue.layout.availableRing, virtio::availableRingBytes(room));
    clear(queue.layout.usedRing, virtio::usedRingBytes(room));
    queue.available = queue.used = 0;
    queue.owners.assign(kj::max(room, 1u), FREE);
  }
}

uint64_t GuestDriver::small(uint64_t size) {
  uint64_t at = SMALL + nextSmall % (SMALL_SIZE - 64);
  nextSmall += (size + 15) & ~uint64_t(15);
  return at;
}

uint64_t GuestDriver::place(Where where, uint64_t raw, uint64_t size) {
  const Region& region = REGIONS[raw % REGION_COUNT];
  uint64_t end = region.guestAddress + region.size;
  switch (where) {
    case Where::DATA: {
      // A new place for each, round all regions, as far as it fits there.
      for (size_t tries = 0; tries <= REGION_COUNT; tries++) {
        uint64_t start = nextData < DATA ? DATA : nextData;
        for (const Region& each : REGIONS) {
          uint64_t begin = kj::max(start, each.guestAddress);
          if (begin + size <= each.guestAddress + each.size && begin + size >= begin) {
            nextData = begin + ((size + 511) & ~uint64_t(511));
            return begin;
          }
        }
        nextData = 0;
      }
      return DATA;
    }
    case Where::SMALL:
      return SMALL + raw % SMALL_SIZE;
    case Where::END:
      return end - size;
    case Where::STRADDLE:
      return end - size + 1 + raw / 4 % 16;
    case Where::HOLE:
      return HOLE + raw % 0x2000;
    case Where::RING:
      return raw % (RING_BLOCK * queues.size());
    case Where::TABLE:
      return TABLES + raw % TABLES_SIZE;
    default:
      return raw;
  }
}

uint64_t GuestDriver::address(const Op& op, uint64_t size) {
  // The upper bits of `c` choose the place, the value itself is in `d`.
  return place(Where(op.c % WHERES), op.c >> 3, size);
}

void GuestDriver::addBuffer(const Op& op) {
  if (pending.size() >= MAX_PENDING) return;
  auto where = Where(op.a % WHERES);
  uint64_t rest = where == Where::RAW && space.host(op.d, 1) != nullptr
                      ? REGIONS[0].size - op.d % REGIONS[0].size
                      : 4096;
  uint32_t size = length(op.b, op.c, rest);
  uint16_t flags = op.a & 8 ? virtio::DESC_F_WRITE : 0;
  pending.push_back(Pending{place(where, op.d, size), size, flags,
                            uint8_t(op.b & 0x800 ? op.b >> 12 & 7 : 0), uint16_t(op.d)});
}

void GuestDriver::addRequest(const RequestTemplate& request) {
  if (pending.size() >= MAX_PENDING) return;
  auto add = [&](uint64_t address, uint32_t size, uint16_t flags) {
    pending.push_back(Pending{address, size, flags, 0, 0});
  };
  if (!request.header.empty()) {
    uint64_t at = small(request.header.size());
    space.write(at, kj::arrayPtr(request.header.data(), request.header.size()));
    uint32_t cut = kj::min(size_t(request.cut), request.header.size());
    if (cut > 0) add(at, cut, 0);
    if (cut < request.header.size()) add(at + cut, request.header.size() - cut, 0);
  }
  auto addData = [&](uint32_t bytes, uint16_t flags) {
    if (bytes == 0) return;
    uint32_t count = kj::max(uint32_t(request.pieces % 8), 1u);
    uint32_t each = kj::max((bytes / count) & ~uint32_t(511), 1u);
    for (uint32_t i = 0; i < count && bytes > 0; i++) {
      uint32_t size = i + 1 == count ? bytes : kj::min(each, bytes);
      add(place(Where::DATA, 0, size), size, flags);
      bytes -= size;
    }
  };
  addData(request.readable, 0);
  addData(request.writable, virtio::DESC_F_WRITE);
  if (request.tail > 0) add(small(request.tail), request.tail, virtio::DESC_F_WRITE);
}

// A free one, or the first when there is none.
uint16_t GuestDriver::takeDescriptor(Queue& queue) {
  for (size_t i = 0; i < queue.owners.size(); i++) {
    if (queue.owners[i] != FREE) continue;
    queue.owners[i] = TAKEN;
    return i;
  }
  return 0;
}

void GuestDriver::publish(const Op& op) {
  Queue& queue = queues[queueOf(op.a & 0x0f)];
  if (pending.empty() || queue.owners.empty()) return;
  bool indirect = op.a & 0x10;
  uint16_t spoil = op.a & 0x80 ? op.b : 0;

  uint16_t chain[MAX_PENDING + 32] = {};  // the last one may be a whole request
  size_t chainSize = indirect ? 1 : pending.size();
  for (size_t i = 0; i < chainSize; i++)
    chain[i] = takeDescriptor(queue);
  auto follower = [&](const Pending& buffer, uint16_t behind, uint16_t first, uint32_t count) {
    switch (buffer.next) {
      case 0:
        return behind;
      case 1:
        return first;
      case 2:
        return uint16_t(count);
      case 3:
        return uint16_t(behind - 1);
      default:
        return buffer.rawNext;
    }
  };
  auto describe = [&](size_t i, uint16_t behind, uint16_t first, uint32_t count) {
    const Pending& buffer = pending[i];
    bool last = i + 1 == pending.size();
    uint16_t flags = buffer.flags;
    if (!last || buffer.next != 0) flags |= virtio::DESC_F_NEXT;
    return Descriptor{buffer.address, buffer.length, flags,
                      follower(buffer, last ? 0 : behind, first, count)};
  };

  if (indirect) {
    uint64_t bytes = pending.size() * sizeof(Descriptor);
    uint64_t at = TABLES + nextTable % (TABLES_SIZE - MAX_PENDING * 2 * sizeof(Descriptor));
    nextTable += bytes;
    if (spoil & SPOIL_TABLE_PLACE) at = place(Where(op.c % WHERES), op.d, bytes);
    for (size_t i = 0; i < pending.size(); i++) {
      space.store(at + i * sizeof(Descriptor), describe(i, i + 1, 0, pending.size()));
    }
    Descriptor table{at, uint32_t(bytes), virtio::DESC_F_INDIRECT, uint16_t(op.d)};
    if (spoil & SPOIL_TABLE_LENGTH) table.length = op.c;
    if (spoil & SPOIL_INDIRECT_NEXT) table.flags |= virtio::DESC_F_NEXT;
    if (spoil & SPOIL_NESTED) space.store(at, table);
    space.store(queue.layout.descriptorTable + chain[0] * sizeof(Descriptor), table);
  } else {
    for (size_t i = 0; i < pending.size(); i++) {
      uint16_t behind = i + 1 < chainSize ? chain[i + 1] : 0;
      space.store(queue.layout.descriptorTable + chain[i] * sizeof(Descriptor),
                  describe(i, behind, chain[0], queue.layout.size));
    }
  }
  pending.clear();
  uint16_t head = chain[0];
  for (size_t i = 0; i < chainSize; i++)
    queue.owners[chain[i]] = head;

  if (spoil & SPOIL_HEAD) head = op.d;
  uint16_t size = kj::max(queue.layout.size, uint16_t(1));
  space.store<uint16_t>(queue.layout.availableRing + virtio::AVAIL_RING_OFFSET +
                            queue.available % size * sizeof(uint16_t),
                        head);
  queue.available += spoil & SPOIL_INDEX ? uint16_t(op.c) : 1;
  if (spoil & SPOIL_EVENT) {
    space.store<uint16_t>(
        queue.layout.availableRing + virtio::AVAIL_RING_OFFSET + size * sizeof(uint16_t), op.c);
  }
  if (spoil & SPOIL_FLAGS) space.store<uint16_t>(queue.layout.availableRing, op.c);
  space.store<uint16_t>(queue.layout.availableRing + virtio::AVAIL_INDEX_OFFSET, queue.available);
}

std::vector<GuestDriver::Used> GuestDriver::takeUsed(uint16_t index) {
  Queue& queue = queues[index];
  std::vector<Used> result;
  if (queue.layout.size == 0) return result;
  auto now = space.load<uint16_t>(queue.layout.usedRing + virtio::USED_INDEX_OFFSET);
  // More than it could hold is the session's affair; here it only must end.
  for (uint32_t i = 0; queue.used != now && i < 2u * queue.layout.size; i++, queue.used++) {
    uint64_t element = queue.layout.usedRing + virtio::USED_RING_OFFSET +
                       queue.used % queue.layout.size * virtio::USED_ELEMENT_BYTES;
    Used used{space.load<uint32_t>(element), space.load<uint32_t>(element + 4)};
    result.push_back(used);
    if (used.head >= queue.owners.size()) continue;
    for (uint16_t& owner : queue.owners)
      if (owner == used.head) owner = FREE;
  }
  queue.used = now;
  return result;
}

}  // namespace troupe::fuzz
