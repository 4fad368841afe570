#include "devices/blk/qcow2/refcounts.h"

#include <errno.h>
#include <kj/debug.h>

#include "devices/blk/qcow2/count_words.h"

namespace troupe::blk::qcow2 {
namespace {

constexpr size_t BLOCK_CACHE_BYTES = 4 << 20;  // 128 GiB of data with the usual clusters
constexpr size_t LEAST_BLOCKS = 4;

// One search looks at so many counts at most; the next goes on from there. Past that, appending is
// cheaper than looking.
constexpr uint64_t MOST_LOOKED_AT = 32768;

// A sound file has hardly any clusters in use behind its end.
constexpr uint64_t MOST_SKIPPED = 1 << 20;

}  // namespace

Refcounts::Refcounts(ImageFile& file, const Header& header, MetadataMap& map)
    : file(file),
      map(map),
      geometry(header.geometry),
      tableOffset(header.refcountTableOffset),
      tableClustersOnDisk(header.refcountTableClusters),
      mostBlocks(kj::max(LEAST_BLOCKS, BLOCK_CACHE_BYTES >> header.geometry.clusterBits)) {
  uint64_t fileBytes = file.size();
  nextNew = geometry.clustersFor(fileBytes);
  map.add(MetadataMap::Kind::REFCOUNT_TABLE, geometry.clusterOf(tableOffset), tableClustersOnDisk);

  AlignedBytes bytes(tableClustersOnDisk << geometry.clusterBits);
  int error = readFully(file, bytes.all(), tableOffset);
  KJ_REQUIRE(error == 0, "TRP-blk-026: the refcount table cannot be read", strerror(-error));
  table.reserve(bytes.size() / 8);
  for (size_t at = 0; at < bytes.size(); at += 8) {
    uint64_t offset = load64(bytes.begin() + at);
    if (offset != 0) {
      KJ_REQUIRE((offset & REFCOUNT_TABLE_RESERVED) == 0 && geometry.isAligned(offset) &&
                     offset < fileBytes,
                 "TRP-blk-023: the qcow2 image is corrupt: a refcount block lies where none can "
                 "be; see `qemu-img check`",
                 at / 8, kj::hex(offset));
      map.add(MetadataMap::Kind::REFCOUNT_BLOCK, geometry.clusterOf(offset), 1);
    }
    table.add(offset);
  }
}

uint64_t Refcounts::read(const Block& block, uint64_t slot) const {
  return loadCount(block.counts.begin(), geometry.refcountOrder, slot);
}

void Refcounts::write(Block& block, uint64_t slot, uint64_t count) {
  storeCount(block.counts.begin(), geometry.refcountOrder, slot, count);
  uint64_t firstBit = slot << geometry.refcountOrder;
  block.counts.touch(firstBit / 8, kj::max(1u, (1u << geometry.refcountOrder) / 8));
}

// Counts may reach the disk at any time before the mappings that need them, so a block that has to
// make room is simply written.
int Refcounts::evict(Block*& room) {
  Block* oldest = blocks[0];
  for (auto& block : blocks) {
    if (block->lastUse < oldest->lastUse) oldest = block;
  }
  if (oldest->counts.isDirty()) {
    auto part = oldest->counts.dirtyPart();
    int error = writeFully(file, part.bytes, table[oldest->index] + part.offset);
    if (error != 0) return error;
    blocksUnsynced = true;
    oldest->counts.clean();
  }
  byIndex.erase(oldest->index);
  room = oldest;
  return 0;
}

int Refcounts::load(uint64_t blockIndex, Block*& block) {
  auto found = byIndex.find(blockIndex);
  if (found != byIndex.end()) {
    block = found->second;
    block->lastUse = ++uses;
    return 0;
  }
  if (blockIndex >= table.size() || table[blockIndex] == 0) return -ENOENT;
  if (blocks.size() < mostBlocks) {
    auto fresh = kj::heap<Block>(Block{blockIndex, AlignedBytes(geometry.clusterBytes()), 0});
    block = fresh;
    blocks.add(kj::mv(fresh));
  } else {
    int error = evict(block);
    if (error != 0) return error;
  }
  block->index = UINT64_MAX;  // of no use until it is filled
  block->lastUse = 0;
  int error = readFully(file, block->counts.all(), table[blockIndex]);
  if (error != 0) return error;
  block->index = blockIndex;
  block->lastUse = ++uses;
  byIndex[blockIndex] = block;
  return 0;
}

int Refcounts::get(uint64_t cluster, uint64_t& count) {
  count = 0;
  Block* block;
  int error = load(cluster / geometry.refcountsPerBlock(), block);
  if (error == -ENOENT) return 0;
  if (error != 0) return error;
  count = read(*block, cluster % geometry.refcountsPerBlock());
  return 0;
}

int Refcounts::set(uint64_t cluster, uint64_t count) {
  if (count > geometry.mostRefcount()) return -ERANGE;
  Block* block;
  int error = load(cluster / geometry.refcountsPerBlock(), block);
  if (error != 0) return error == -ENOENT ? -EIO : error;
  write(*block, cluster % geometry.refcountsPerBlock(), count);
  return 0;
}

int Refcounts::decrement(uint64_t cluster, uint64_t& left) {
  uint64_t count;
  int error = get(cluster, count);
  if (error != 0) return error;
  if (count == 0) return -EIO;
  left = count - 1;
  return set(cluster, left);
}

// A new block at the cluster `at`, which is free, and whose count is in that block or in one that
// exists. Written at once: a file system without room is to say so now and not at the next flush.
int Refcounts::createBlock(uint64_t blockIndex, uint64_t at) {
  if ((blockIndex + 1) * 8 > MOST_REFCOUNT_TABLE_BYTES) return -EFBIG;
  AlignedBytes zeroes(geometry.clusterBytes());
  zeroes.clear();
  int error = writeFully(file, zeroes.all(), at << geometry.clusterBits);
  if (error != 0) return error;
  if (!map.tryAdd(MetadataMap::Kind::REFCOUNT_BLOCK, at, 1)) return -ENOSPC;
  while (table.size() <= blockIndex)
    table.add(0);
  table[blockIndex] = at << geometry.clusterBits;
  error = set(at, 1);
  if (error != 0) {
    table[blockIndex] = 0;
    map.remove(at, 1);
    return error;
  }
  tableDirty = true;
  return 0;
}

int Refcounts::append(uint64_t count, uint64_t& first) {
  uint64_t perBlock = geometry.refcountsPerBlock();
  for (uint64_t skipped = 0; skipped < MOST_SKIPPED; skipped++) {
    first = nextNew;
    if (((first + count) << geometry.clusterBits) > MOST_BYTES) return -EFBIG;
    // The lowest block that is missing takes the first cluster, which it counts itself or which
    // has a block already; then all is one cluster further on.
    bool moved = false;
    for (uint64_t cluster = first; cluster < first + count && !moved;) {
      uint64_t index = cluster / perBlock;
      if (index < table.size() && table[index] != 0) {
        uint64_t used;
        int error = get(cluster, used);
        if (error != 0) return error;
        if (used != 0 || map.contains(cluster)) {
          nextNew = cluster + 1;
          moved = true;
        }
        cluster++;
        continue;
      }
      uint64_t used = 0;
      int error = get(first, used);
      if (error != 0) return error;
      if (used == 0 && !map.contains(first)) {
        error = createBlock(index, first);
        if (error != 0) return error;
      }
      nextNew = first + 1;
      moved = true;
    }
    if (moved) continue;
    for (uint64_t i = 0; i < count; i++) {
      int error = set(first + i, 1);
      if (error != 0) {
        giveBack(first, i);
        return error;
      }
    }
    nextNew = first + count;
    return 0;
  }
  return -ENOSPC;
}

int Refcounts::ensureBlock(uint64_t cluster) {
  uint64_t index = cluster / geometry.refcountsPerBlock();
  if (index < table.size() && table[index] != 0) return 0;
  uint64_t place;
  int error = append(1, place);
  if (error != 0) return error;
  // Making room may have made the very block.
  if (index < table.size() && table[index] != 0) {
    giveBack(place, 1);
    return 0;
  }
  return createBlock(index, place);
}

bool Refcounts::isFree(uint64_t cluster, const Block& block) const {
  return read(block, cluster % geometry.refcountsPerBlock()) == 0 && !map.contains(cluster);
}

// A run of free clusters in front of the end, from the cursor on; `count` 0 if none was seen.
int Refcounts::findFree(uint64_t wanted, uint64_t& first, uint64_t& count) {
  uint64_t perBlock = geometry.refcountsPerBlock();
  count = 0;
  for (uint64_t looked = 0; looked < MOST_LOOKED_AT && cursor < nextNew; looked++) {
    Block* block;
    int error = load(cursor / perBlock, block);
    if (error == -ENOENT) {
      cursor = (cursor / perBlock + 1) * perBlock;  // what nobody counts is not given away
      if (count > 0) return 0;
      continue;
    }
    if (error != 0) return error;
    bool free = isFree(cursor, *block);
    if (!free && count > 0) return 0;
    if (free) {
      if (count == 0) first = cursor;
      count++;
    }
    cursor++;
    if (count == wanted) return 0;
  }
  return 0;
}

int Refcounts::takeForData(uint64_t wanted, Taken& taken) {
  taken.fresh = false;
  int error = findFree(wanted, taken.first, taken.count);
  if (error != 0) return error;
  if (taken.count == 0) {
    taken.count = wanted;
    taken.fresh = true;
    return append(wanted, taken.first);
  }
  for (uint64_t i = 0; i < taken.count; i++) {
    error = set(taken.first + i, 1);
    if (error != 0) {
      giveBack(taken.first, i);
      return error;
    }
  }
  return 0;
}

void Refcounts::giveBack(uint64_t first, uint64_t count) {
  for (uint64_t i = 0; i < count; i++)
    set(first + i, 0);  // its block is in memory or can be read again; if not, it is a leak
  reconsider(first);
}

bool Refcounts::isDirty() const {
  if (tableDirty || blocksUnsynced) return true;
  for (auto& block : blocks) {
    if (block->counts.isDirty()) return true;
  }
  return false;
}

int Refcounts::writeBack(HeaderBlock& header, kj::Maybe<Place>& freed) {
  // A table that has outgrown its place takes another one, which may make it grow again.
  uint64_t newFirst = 0;
  uint64_t newCount = 0;
  while (tableClusters() > kj::max(tableClustersOnDisk, newCount)) {
    if (newCount > 0) giveBack(newFirst, newCount);
    newCount = 0;
    uint64_t count = kj::min(tableClusters() + tableClusters() / 2 + 1,
                             MOST_REFCOUNT_TABLE_BYTES >> geometry.clusterBits);
    if (count < tableClusters()) return -EFBIG;
    int error = append(count, newFirst);
    if (error != 0) return error;
    newCount = count;
  }
  for (auto& block : blocks) {
    if (!block->counts.isDirty()) continue;
    auto part = block->counts.dirtyPart();
    int error = writeFully(file, part.bytes, table[block->index] + part.offset);
    if (error != 0) {
      if (newCount > 0) giveBack(newFirst, newCount);
      return error;
    }
    blocksUnsynced = true;
  }
  if (!tableDirty) return 0;

  // Blocks before the table that leads to them.
  int error = file.sync();
  uint64_t place = newCount > 0 ? newFirst << geometry.clusterBits : tableOffset;
  uint64_t clusters = newCount > 0 ? newCount : tableClustersOnDisk;
  if (error == 0) {
    AlignedBytes bytes(clusters << geometry.clusterBits);
    bytes.clear();
    for (size_t i = 0; i < table.size(); i++)
      store64(bytes.begin() + i * 8, table[i]);
    error = writeFully(file, bytes.all(), place);
  }
  if (error == 0 && newCount > 0) {
    // And the table before the header that leads to it.
    error = file.sync();
    if (error == 0 && !map.tryAdd(MetadataMap::Kind::REFCOUNT_TABLE, newFirst, newCount)) {
      error = -ENOSPC;
    }
    if (error == 0) {
      store64(header.fields() + AT_REFCOUNT_TABLE_OFFSET, place);
      store32(header.fields() + AT_REFCOUNT_TABLE_CLUSTERS, clusters);
      error = header.write();
      // Whether or not it arrived: from here on the old place may or may not be the table's.
      uint64_t oldFirst = geometry.clusterOf(tableOffset);
      if (error == 0) freed = Place{oldFirst, tableClustersOnDisk};
      tableOffset = place;
      tableClustersOnDisk = clusters;
      return error;
    }
  }
  if (error != 0 && newCount > 0) giveBack(newFirst, newCount);
  return error;
}

void Refcounts::written() {
  for (auto& block : blocks)
    block->counts.clean();
  tableDirty = false;
  blocksUnsynced = false;
}

}  // namespace troupe::blk::qcow2
