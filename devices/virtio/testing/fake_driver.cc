#include "devices/virtio/testing/fake_driver.h"

#include <kj/debug.h>

namespace troupe::virtio::testing {
namespace {

void storeDescriptor(kj::byte* where, const Descriptor& descriptor) {
  storeWord<uint64_t>(where, descriptor.address);
  storeWord<uint64_t>(where + 8, descriptor.length | uint64_t(descriptor.flags) << 32 |
                                     uint64_t(descriptor.next) << 48);
}

}  // namespace

FakeDriver::FakeDriver(FakeRam& ram, uint16_t size, RingFeatures features)
    : ram(ram), features(features), chains(kj::heapArray<kj::Vector<uint16_t>>(size)) {
  where.size = size;
  where.descriptorTable = ram.allocate(descriptorTableBytes(size), DESCRIPTOR_TABLE_ALIGNMENT);
  where.availableRing = ram.allocate(availableRingBytes(size), AVAILABLE_RING_ALIGNMENT);
  where.usedRing = ram.allocate(usedRingBytes(size), USED_RING_ALIGNMENT);
  descriptors = ram.bytes(where.descriptorTable, descriptorTableBytes(size)).begin();
  available = ram.bytes(where.availableRing, availableRingBytes(size)).begin();
  used = ram.bytes(where.usedRing, usedRingBytes(size)).begin();
  memset(descriptors, 0, descriptorTableBytes(size));
  memset(available, 0, availableRingBytes(size));
  memset(used, 0, usedRingBytes(size));
  for (uint16_t i = size; i > 0; i--)
    freeDescriptors.add(i - 1);
}

Buffer FakeDriver::readableBuffer(kj::ArrayPtr<const kj::byte> bytes) {
  uint64_t address = ram.allocate(bytes.size(), 1);
  copyIn(ram.bytes(address, bytes.size()).begin(), bytes);
  return readable(address, bytes.size());
}

Buffer FakeDriver::writableBuffer(uint32_t length) {
  return writable(ram.allocate(length, 1), length);
}

uint16_t FakeDriver::takeFree() {
  KJ_REQUIRE(freeDescriptors.size() > 0, "the test's driver has no descriptor left");
  uint16_t index = freeDescriptors.back();
  freeDescriptors.removeLast();
  return index;
}

uint16_t FakeDriver::add(kj::ArrayPtr<const Buffer> buffers) {
  KJ_REQUIRE(buffers.size() > 0 && buffers.size() <= freeDescriptors.size(),
             "the test's driver has too few descriptors left");
  kj::Vector<uint16_t> indices;
  for (size_t i = 0; i < buffers.size(); i++)
    indices.add(takeFree());
  for (size_t i = 0; i < buffers.size(); i++) {
    bool last = i + 1 == buffers.size();
    uint16_t flags = (last ? 0 : DESC_F_NEXT) | (buffers[i].writable ? DESC_F_WRITE : 0);
    writeDescriptor(indices[i], Descriptor{buffers[i].address, buffers[i].length, flags,
                                           last ? uint16_t(0) : indices[i + 1]});
  }
  uint16_t head = indices[0];
  chains[head] = kj::mv(indices);
  makeAvailable(head);
  return head;
}

uint16_t FakeDriver::addIndirect(kj::ArrayPtr<const Buffer> buffers) {
  uint64_t tableBytes = buffers.size() * sizeof(Descriptor);
  uint64_t table = ram.allocate(tableBytes);
  for (size_t i = 0; i < buffers.size(); i++) {
    bool last = i + 1 == buffers.size();
    uint16_t flags = (last ? 0 : DESC_F_NEXT) | (buffers[i].writable ? DESC_F_WRITE : 0);
    storeDescriptor(ram.bytes(table + i * sizeof(Descriptor), sizeof(Descriptor)).begin(),
                    Descriptor{buffers[i].address, buffers[i].length, flags,
                               last ? uint16_t(0) : uint16_t(i + 1)});
  }
  uint16_t head = takeFree();
  chains[head].add(head);
  writeDescriptor(head, Descriptor{table, uint32_t(tableBytes), DESC_F_INDIRECT, 0});
  makeAvailable(head);
  return head;
}

bool FakeDriver::shouldKick() {
  uint16_t before = kickedUpTo;
  kickedUpTo = nextAvailable;
  if (!features.eventIndex) return !(usedFlags() & USED_F_NO_NOTIFY);
  return passesEvent(availableEvent(), before, nextAvailable);
}

void FakeDriver::giveBack(uint16_t head) {
  for (uint16_t index : chains[head])
    freeDescriptors.add(index);
  chains[head].clear();
}

kj::Maybe<FakeDriver::Used> FakeDriver::takeUsed() {
  if (usedIndex() == nextUsed) return nullptr;
  Used element = usedElement(nextUsed & (where.size - 1));
  ++nextUsed;
  if (element.head < where.size) giveBack(element.head);
  return element;
}

void FakeDriver::wantInterrupts(bool wanted) {
  if (features.eventIndex) {
    writeUsedEvent(wanted ? nextUsed : nextUsed - 1);
  } else {
    writeAvailableFlags(wanted ? 0 : AVAIL_F_NO_INTERRUPT);
  }
}

void FakeDriver::writeDescriptor(uint16_t index, const Descriptor& descriptor) {
  storeDescriptor(descriptors + index * sizeof(Descriptor), descriptor);
}

Descriptor FakeDriver::readDescriptor(uint16_t index) const {
  Descriptor descriptor;
  memcpy(&descriptor, descriptors + index * sizeof(Descriptor), sizeof(descriptor));
  return descriptor;
}

void FakeDriver::writeAvailable(uint16_t slot, uint16_t head) {
  storeWord<uint16_t>(available + AVAIL_RING_OFFSET + slot * sizeof(uint16_t), head);
}

void FakeDriver::writeAvailableIndex(uint16_t index) {
  nextAvailable = index;
  storeIndex(available + AVAIL_INDEX_OFFSET, index);
}

void FakeDriver::writeAvailableFlags(uint16_t flags) {
  storeIndex(available + AVAIL_FLAGS_OFFSET, flags);
}

void FakeDriver::writeUsedEvent(uint16_t index) {
  storeIndex(available + AVAIL_RING_OFFSET + where.size * sizeof(uint16_t), index);
}

uint16_t FakeDriver::usedIndex() const {
  return loadIndex(used + USED_INDEX_OFFSET);
}

uint16_t FakeDriver::usedFlags() const {
  return loadIndex(used + USED_FLAGS_OFFSET);
}

uint16_t FakeDriver::availableEvent() const {
  return loadIndex(used + USED_RING_OFFSET + where.size * USED_ELEMENT_BYTES);
}

FakeDriver::Used FakeDriver::usedElement(uint16_t slot) const {
  const kj::byte* element = used + USED_RING_OFFSET + slot * USED_ELEMENT_BYTES;
  return Used{loadWord<uint32_t>(element), loadWord<uint32_t>(element + 4)};
}

void FakeDriver::makeAvailable(uint16_t head) {
  writeAvailable(nextAvailable & (where.size - 1), head);
  writeAvailableIndex(nextAvailable + 1);
}

}  // namespace troupe::virtio::testing
