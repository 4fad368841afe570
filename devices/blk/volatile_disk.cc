#include "devices/blk/volatile_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <linux/falloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/qcow2/pieces.h"
#include "tests/fuzz/planted.h"

namespace troupe::blk {
namespace {

constexpr uint32_t PAGE_BITS = 12;  // what a memfd has memory by

// What is in memory is there at once; short only where memory is.
int64_t transfer(long call, int fd, kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  for (;;) {
    long result = syscall(call, fd, pieces.begin(), pieces.size(), offset, 0, 0);
    if (result >= 0) return result;
    if (errno != EINTR) return -errno;
  }
}

// What O_DIRECT reads is a multiple of its blocks.
uint32_t clusterBitsFor(uint32_t blockBytes) {
  uint32_t bits = PAGE_BITS;
  while ((1u << bits) < blockBytes)
    bits++;
  return bits;
}

DiskShape shapeOf(const Disk& disk, ImageDisk* image) {
  DiskShape shape = image == nullptr ? disk.shape() : image->shape();
  shape.readOnly = false;
  KJ_REQUIRE(shape.bytes <= BlkConfig::MOST_VOLATILE_BYTES,
             "TRP-blk-010: a volatile disk has at most 64 TiB", shape.bytes);
  return shape;
}

// One set behind the other.
kj::ArrayPtr<kj::byte> keptBits(kj::Maybe<const KeptFile&> kept, uint64_t clusters, size_t index) {
  uint64_t bytes = ClusterBits::bytesFor(clusters);
  KJ_IF_MAYBE (file, kept) {
    KJ_REQUIRE(file->memory().size() >= 2 * bytes, "too little is kept of a volatile disk", bytes);
    return file->memory().slice(index * bytes, (index + 1) * bytes);
  }
  return nullptr;
}

// Of a memfd.
uint64_t bytesInUse(int memory) {
  uint64_t bytes = 0;
  for (off_t hole = 0;;) {
    off_t data = lseek(memory, hole, SEEK_DATA);
    if (data < 0 && errno == ENXIO) return bytes;  // nothing more
    KJ_SYSCALL(data);
    KJ_SYSCALL(hole = lseek(memory, data, SEEK_HOLE));
    bytes += hole - data;
  }
}

}  // namespace

VolatileDisk::VolatileDisk(int memory, const Disk& disk, ImageDisk* image, uint64_t mostBytes,
                           kj::Maybe<const KeptFile&> kept)
    : memory(memory),
      kept(kept),
      rawFile(kj::heap<DiskFile>(disk)),
      rawBelow(kj::heap<qcow2::RawLayer>(*rawFile, 0, disk.shape().bytes)),
      below(image == nullptr ? *rawBelow : static_cast<qcow2::Layer&>(image->image())),
      diskShape(shapeOf(disk, image)),
      clusterBits(clusterBitsFor(diskShape.blockBytes)),
      mostClusters(mostBytes >> clusterBits),
      written(clusterCount(), keptBits(kept, clusterCount(), 0)),
      held(clusterCount(), keptBits(kept, clusterCount(), 1)),
      copy(size_t(1) << clusterBits) {}

// It may have died between any two changes, or have been hostile: what is held and not written
// cannot be, and nobody relies on bits behind the disk's end. What memory is in use the kernel
// knows.
void VolatileDisk::takeOver() {
  KJ_IF_MAYBE (file, kept) {
    uint64_t bytes = ClusterBits::bytesFor(clusterCount());
    file->forData(0, bytes, [this](uint64_t at, uint64_t word) { written.adopt(at / 8, word); });
    file->forData(bytes, bytes, [this](uint64_t at, uint64_t word) {
      uint64_t bits = word & written.wordAt(at / 8);
      held.adopt(at / 8, bits);
      heldClusters += __builtin_popcountll(bits);
    });
    heldClusters = kj::max(heldClusters, bytesInUse(memory) >> clusterBits);
    holesAreKnown = heldClusters == 0;
  }
}

uint64_t VolatileDisk::heldBytes() {
  Lock lock(mutex);
  return heldClusters << clusterBits;
}

VolatileDisk::Clusters VolatileDisk::touchedBy(uint64_t offset, uint64_t bytes) const {
  uint64_t first = offset >> clusterBits;
  return {first, ((offset + bytes - 1) >> clusterBits) - first + 1};
}

VolatileDisk::Run VolatileDisk::locate(uint64_t offset, uint64_t bytes) const {
  auto clusters = touchedBy(offset, bytes);
  // Bits only become 1. What becomes so while we look is being written at this moment.
  bool isWritten = written.test(clusters.first);
  uint64_t same = written.run(clusters.first, clusters.count, isWritten);
  uint64_t end = (clusters.first + same) << clusterBits;
  return {isWritten, kj::min(end - offset, bytes)};
}

int64_t VolatileDisk::read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) const {
  return transfer(SYS_preadv2, memory, pieces, offset);
}

int64_t VolatileDisk::write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  uint64_t bytes = qcow2::sizeOf(pieces);
  auto clusters = touchedBy(offset, bytes);
  bool allHeld =
      held.test(clusters.first) && held.run(clusters.first, clusters.count, true) == clusters.count;
  if (allHeld) return transfer(SYS_pwritev2, memory, pieces, offset);

  Lock lock(mutex);
  uint64_t more = clusters.count - held.countOf(clusters.first, clusters.count);
  if (heldClusters + more > mostClusters) return -ENOSPC;
  uint64_t end = offset + bytes;
  int error = copyUncovered(clusters.first, offset, end);
  if (error == 0 && clusters.count > 1) {
    error = copyUncovered(clusters.first + clusters.count - 1, offset, end);
  }
  int64_t put = error != 0 ? error : transfer(SYS_pwritev2, memory, pieces, offset);
  if (put != int64_t(bytes)) {
    forget(clusters);  // memory is short
    return put < 0 ? put : -ENOSPC;
  }
  heldClusters += more;
  // In this order: who finds memory that is held writes there and nothing else.
  written.set(clusters.first, clusters.count);
  held.set(clusters.first, clusters.count);
  return put;
}

// What a write of [offset, end) leaves of a cluster that is not in memory yet.
int VolatileDisk::copyUncovered(uint64_t cluster, uint64_t offset, uint64_t end) {
  if (fuzz::isPlanted(fuzz::Bug::VOLATILE_COPY)) return 0;
  bool isCovered = offset <= cluster << clusterBits && end >= endOf(cluster);
  if (isCovered || written.test(cluster)) return 0;
  return copyFromBelow(cluster);
}

int VolatileDisk::copyFromBelow(uint64_t cluster) {
  uint64_t offset = cluster << clusterBits;
  int error = qcow2::readFully(below, copy.all(), offset);
  if (error != 0) return error;
  iovec piece{copy.begin(), endOf(cluster) - offset};
  int64_t put = transfer(SYS_pwritev2, memory, kj::arrayPtr(&piece, 1), offset);
  if (put < 0) return int(put);
  return uint64_t(put) == piece.iov_len ? 0 : -ENOSPC;
}

// What a write that failed may have left where nothing counts as written: a place that is not held
// is a hole.
void VolatileDisk::forget(Clusters clusters) {
  uint64_t end = clusters.first + clusters.count;
  for (uint64_t i = clusters.first; i < end; i++) {
    if (!held.test(i)) punch(i, 1);
  }
}

int VolatileDisk::punch(uint64_t cluster, uint64_t count) {
  for (;;) {
    if (fallocate(memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, cluster << clusterBits,
                  count << clusterBits) == 0) {
      return 0;
    }
    if (errno != EINTR) return -errno;
  }
}

int VolatileDisk::clearClusters(Clusters clusters) {
  if (clusters.count == 0) return 0;
  Lock lock(mutex);
  uint64_t freed = held.countOf(clusters.first, clusters.count);
  if (freed > 0 || !holesAreKnown) {
    int error = punch(clusters.first, clusters.count);
    if (error != 0) return error;
    held.clear(clusters.first, clusters.count);
    heldClusters -= freed;
  }
  written.set(clusters.first, clusters.count);
  return 0;
}

int VolatileDisk::writeZeroes(uint64_t offset, uint64_t end) {
  static const kj::byte ZEROES[4096] = {};
  while (offset < end) {
    iovec piece{const_cast<kj::byte*>(ZEROES), kj::min(end - offset, sizeof(ZEROES))};
    int64_t put = write(kj::arrayPtr(&piece, 1), offset);
    if (put < 0) return int(put);
    offset += put;
  }
  return 0;
}

int64_t VolatileDisk::change(DiskIo::Change change, uint64_t offset, uint64_t bytes) {
  uint64_t end = offset + bytes;
  uint64_t first = (offset + clusterBytes() - 1) >> clusterBits;
  // The disk's last cluster ends where the disk does.
  uint64_t last =
      end == diskShape.bytes ? (end + clusterBytes() - 1) >> clusterBits : end >> clusterBits;
  Clusters whole{first, last > first ? last - first : 0};
  int error = clearClusters(whole);
  if (error == 0 && change != DiskIo::Change::DISCARD) {
    bool hasWhole = whole.count > 0;
    error = writeZeroes(offset, hasWhole ? first << clusterBits : end);
    if (error == 0 && hasWhole) error = writeZeroes(kj::min(last << clusterBits, end), end);
  }
  return error == 0 ? int64_t(bytes) : error;
}

}  // namespace troupe::blk
