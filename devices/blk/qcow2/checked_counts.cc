#include "devices/blk/qcow2/checked_counts.h"

#include <kj/debug.h>

#include "devices/blk/qcow2/count_words.h"
#include "devices/blk/qcow2/format.h"

namespace troupe::blk::qcow2 {
namespace {

constexpr size_t CACHE_BYTES = 4 << 20;
constexpr size_t LEAST_SLOTS = 4;
constexpr uint64_t NO_BLOCK = UINT64_MAX;

// parseHeader() looks at this only for an image that is to be written.
uint64_t tableBytesOf(const Header& header, uint64_t fileBytes) {
  uint64_t bytes = uint64_t(header.refcountTableClusters) << header.geometry.clusterBits;
  uint64_t offset = header.refcountTableOffset;
  KJ_REQUIRE(bytes > 0 && bytes <= MOST_REFCOUNT_TABLE_BYTES && offset != 0 &&
                 header.geometry.isAligned(offset) && offset < fileBytes,
             "TRP-blk-020: the qcow2 image has a header that cannot be: its refcount table", offset,
             bytes);
  KJ_REQUIRE(header.snapshotCount <= MOST_SNAPSHOTS && header.snapshotsOffset < MOST_BYTES &&
                 header.geometry.isAligned(header.snapshotsOffset),
             "TRP-blk-020: the qcow2 image has a header that cannot be: its snapshots",
             header.snapshotCount, header.snapshotsOffset);
  return bytes;
}

}  // namespace

CheckedCounts::CheckedCounts(ImageFile& file, const Header& header)
    : file(file),
      geometry(header.geometry),
      tableSize(tableBytesOf(header, file.size())),
      mostSlots(kj::max(LEAST_SLOTS, kj::min(CACHE_BYTES >> header.geometry.clusterBits,
                                             tableSize / sizeof(uint64_t)))) {
  AlignedBytes bytes(tableSize);
  int error = readFully(file, bytes.all(), header.refcountTableOffset);
  KJ_REQUIRE(error == 0, "TRP-blk-026: the refcount table cannot be read", strerror(-error));
  uint64_t fileBytes = file.size();
  table.reserve(bytes.size() / sizeof(uint64_t));
  for (size_t at = 0; at < bytes.size(); at += 8) {
    uint64_t entry = load64(bytes.begin() + at);
    bool sound =
        (entry & REFCOUNT_TABLE_RESERVED) == 0 && geometry.isAligned(entry) && entry < fileBytes;
    table.add(Entry{entry, sound});
  }
  slots.reserve(mostSlots);
  for (size_t i = 0; i < mostSlots; i++)
    slots.add(kj::Own<Slot>());
}

kj::Maybe<CheckedCounts::Slot&> CheckedCounts::load(uint64_t cluster) {
  uint64_t index = cluster / geometry.refcountsPerBlock();
  if (index >= table.size() || table[index].offset == 0 || !table[index].sound) return nullptr;
  auto& slot = slots[index % mostSlots];
  if (slot.get() == nullptr) {
    slot = kj::heap<Slot>(Slot{NO_BLOCK, AlignedBytes(geometry.clusterBytes())});
  }
  if (slot->index == index) return *slot;
  write(*slot);
  slot->index = NO_BLOCK;
  int error = readFully(file, slot->counts.all(), table[index].offset);
  KJ_REQUIRE(error == 0, "TRP-blk-026: a refcount block cannot be read", strerror(-error));
  slot->index = index;
  return *slot;
}

uint64_t CheckedCounts::get(uint64_t cluster) {
  KJ_IF_MAYBE (slot, load(cluster)) {
    return loadCount(slot->counts.begin(), geometry.refcountOrder,
                     cluster % geometry.refcountsPerBlock());
  }
  return 0;
}

void CheckedCounts::lower(uint64_t cluster, uint64_t count) {
  auto& slot = KJ_ASSERT_NONNULL(load(cluster), "what has a count has a block");
  storeCount(slot.counts.begin(), geometry.refcountOrder, cluster % geometry.refcountsPerBlock(),
             count);
  slot.counts.touch(0, slot.counts.size());
}

void CheckedCounts::write(Slot& slot) {
  if (!slot.counts.isDirty()) return;
  int error = writeFully(file, slot.counts.all(), table[slot.index].offset);
  KJ_REQUIRE(error == 0, "TRP-disk-102: the image cannot be written", strerror(-error));
  slot.counts.clean();
}

void CheckedCounts::writeBack() {
  for (auto& slot : slots) {
    if (slot.get() != nullptr) write(*slot);
  }
}

}  // namespace troupe::blk::qcow2
