#include "vmm/record/replay_ram.h"

#include <errno.h>
#include <kj/debug.h>
#include <sys/mman.h>

#include <cstring>

#include "devices/virtio/wire.h"

namespace troupe {

namespace {

constexpr size_t MOST_REGIONS = 64;
constexpr uint64_t PAGE_BYTES = 4096;

bool isWholePages(uint64_t value) {
  return value % PAGE_BYTES == 0;
}

// Of a ring's three parts, which are the driver's to clear.
struct Part {
  uint64_t address;
  uint64_t bytes;
};

}  // namespace

kj::Array<ReplayRam::Region> ReplayRam::read(capnp::List<RamRegion>::Reader given) {
  KJ_REQUIRE(given.size() > 0 && given.size() <= MOST_REGIONS, "not so many pieces of RAM");
  return KJ_MAP(region, given) {
    Region copy{region.getGuestAddress(), region.getFileOffset(), region.getSize()};
    KJ_REQUIRE(isWholePages(copy.guestAddress) && isWholePages(copy.fileOffset) &&
                   isWholePages(copy.size) && copy.size > 0 && copy.size <= MOST_BYTES &&
                   copy.fileOffset <= MOST_BYTES - copy.size,
               "no such RAM can be");
    return copy;
  };
}

uint64_t ReplayRam::fileBytes(capnp::List<RamRegion>::Reader given) {
  uint64_t bytes = 0;
  for (auto& region : read(given))
    bytes = kj::max(bytes, region.fileOffset + region.size);
  return bytes;
}

ReplayRam::ReplayRam(capnp::List<RamRegion>::Reader given, const RamPlace& place)
    : regions(read(given)), mapping(place.mapping), bytesMapped(place.bytes) {
  KJ_REQUIRE(fileBytes(given) <= bytesMapped, "there is no room for such RAM");
}

ReplayRam::ReplayRam(capnp::List<RamRegion>::Reader given)
    : regions(read(given)), bytesMapped(fileBytes(given)), isOwn(true) {
  void* address = mmap(nullptr, bytesMapped, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) KJ_FAIL_SYSCALL("mmap(RAM of a recording)", errno, bytesMapped);
  mapping = static_cast<kj::byte*>(address);
}

ReplayRam::~ReplayRam() noexcept(false) {
  if (isOwn) munmap(mapping, bytesMapped);
}

void ReplayRam::describe(GuestRam::Builder ram) const {
  auto list = ram.initRegions(regions.size());
  for (size_t i = 0; i < regions.size(); i++) {
    list[i].setGuestAddress(regions[i].guestAddress);
    list[i].setFileOffset(regions[i].fileOffset);
    list[i].setSize(regions[i].size);
  }
}

kj::ArrayPtr<kj::byte> ReplayRam::bytes(uint64_t guestAddress, uint64_t size) const {
  for (auto& region : regions) {
    uint64_t inside = guestAddress - region.guestAddress;
    if (inside < region.size && size <= region.size - inside)
      return kj::arrayPtr(mapping + region.fileOffset + inside, size);
  }
  KJ_FAIL_REQUIRE("an address that is not in the guest's RAM", guestAddress, size);
}

ReplayDriver::ReplayDriver(const ReplayRam& ram, QueueLayout::Reader layout)
    : ram(ram),
      size(layout.getSize()),
      descriptorTable(layout.getDescriptorTable()),
      availableRing(layout.getAvailableRing()) {
  KJ_REQUIRE(size > 0 && size <= virtio::MAX_QUEUE_SIZE && (size & (size - 1)) == 0,
             "no queue has this size", size);
  KJ_REQUIRE(availableRing % virtio::AVAILABLE_RING_ALIGNMENT == 0, "no ring lies there");
  for (auto part : {Part{descriptorTable, virtio::descriptorTableBytes(size)},
                    Part{availableRing, virtio::availableRingBytes(size)},
                    Part{layout.getUsedRing(), virtio::usedRingBytes(size)}}) {
    auto bytes = ram.bytes(part.address, part.bytes);
    memset(bytes.begin(), 0, bytes.size());
  }
}

void ReplayDriver::make(TakenChain::Reader chain) {
  if (chain.getIsIndex()) return advance(size + 1);
  putDescriptors(chain);
  if (!chain.getRefused()) putBuffers(chain);
  uint64_t slot = availableRing + virtio::AVAIL_RING_OFFSET + next % size * sizeof(uint16_t);
  uint16_t head = chain.getHead();
  memcpy(ram.bytes(slot, sizeof(head)).begin(), &head, sizeof(head));
  advance(1);
}

void ReplayDriver::putDescriptors(TakenChain::Reader chain) {
  uint64_t indirect = 0;
  for (auto one : chain.getDescriptors()) {
    uint64_t table = one.getInIndirect() ? indirect : descriptorTable;
    uint64_t limit = one.getInIndirect() ? virtio::MAX_QUEUE_SIZE : size;
    KJ_REQUIRE(one.getIndex() < limit, "a descriptor outside its table");
    virtio::Descriptor descriptor{one.getAddress(), one.getLength(), one.getFlags(), one.getNext()};
    auto place = ram.bytes(table + one.getIndex() * sizeof(descriptor), sizeof(descriptor));
    memcpy(place.begin(), &descriptor, sizeof(descriptor));
    bool isTable = (one.getFlags() & virtio::DESC_F_INDIRECT) && !one.getInIndirect();
    if (isTable) indirect = one.getAddress();
  }
}

void ReplayDriver::putBuffers(TakenChain::Reader chain) {
  auto readable = chain.getReadable().asBytes();
  auto tail = chain.getTail().asBytes();
  kj::ArrayPtr<kj::byte> lastOnes[16];  // pieces that the tail may lie in: one for each byte
  size_t pieces = 0;
  for (auto one : chain.getDescriptors()) {
    if ((one.getFlags() & virtio::DESC_F_INDIRECT) || one.getLength() == 0) continue;
    auto buffer = ram.bytes(one.getAddress(), one.getLength());
    if (one.getFlags() & virtio::DESC_F_WRITE) {
      lastOnes[pieces++ % kj::size(lastOnes)] = buffer;
    } else {
      size_t part = kj::min(buffer.size(), readable.size());
      memcpy(buffer.begin(), readable.begin(), part);
      readable = readable.slice(part, readable.size());
    }
  }
  for (size_t back = 1; back <= kj::min(pieces, kj::size(lastOnes)) && tail.size() > 0; back++) {
    auto buffer = lastOnes[(pieces - back) % kj::size(lastOnes)];
    size_t part = kj::min(buffer.size(), tail.size());
    memcpy(buffer.end() - part, tail.end() - part, part);
    tail = tail.slice(0, tail.size() - part);
  }
}

// The chain before its index, which the device reads with the matching barrier.
void ReplayDriver::advance(uint16_t by) {
  next += by;
  auto index = ram.bytes(availableRing + virtio::AVAIL_INDEX_OFFSET, sizeof(next));
  __atomic_store_n(reinterpret_cast<uint16_t*>(index.begin()), next, __ATOMIC_SEQ_CST);
}

}  // namespace troupe
