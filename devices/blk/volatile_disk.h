#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/memory.h>
#include <sys/uio.h>

#include <cstdint>
#include <mutex>

#include "devices/blk/blk_request.h"
#include "devices/blk/cluster_bits.h"
#include "devices/blk/disk.h"
#include "devices/blk/disk_io.h"
#include "devices/blk/image_disk.h"
#include "devices/blk/kept_file.h"
#include "devices/blk/qcow2/aligned_bytes.h"
#include "devices/blk/qcow2/layer.h"

namespace troupe::blk {

// A disk that is only read, and above it what was written to it since the start: bytes in a memfd,
// each at the place it has on the disk. Nothing of it reaches the disk, and it goes with the memfd.
//
// A bit per cluster says where a read finds it. Reads, and writes to clusters that have their
// memory, take no lock; the first write to a cluster does, as it may have to copy what it does not
// cover. Any thread; results are bytes, 0 or -errno. Nothing waits, but for bytes of the disk below
// that are to be copied.
//
// Its bits can be kept in memory that outlives the process, beside the memfd: whoever takes its
// place finds what was written. Each change of a cluster leaves both sets of bits, whenever it is
// cut, so that the request can be repeated. A hostile predecessor could have written anything into
// the memfd; with its bits it can do no more.
class VolatileDisk {
 public:
  // `memory`: a memfd of zeroes, at least as large as the disk. `image`: what is in `disk`; null:
  // the guest's bytes. At most `mostBytes` of memory are used. What is passed must outlive this.
  // Throws TRP-blk-….
  VolatileDisk(int memory, const Disk& disk, ImageDisk* image, uint64_t mostBytes,
               kj::Maybe<const KeptFile&> kept = nullptr);
  KJ_DISALLOW_COPY(VolatileDisk);

  // Goes on with what a process before this one wrote, which has ended. No queue is at work, and
  // nothing was written here. Where nothing is kept there is nothing to go on with.
  void takeOver();

  // As the guest has it: that below, and writable.
  const DiskShape& shape() const { return diskShape; }
  uint32_t clusterBytes() const { return 1u << clusterBits; }
  // Memory in use, in bytes.
  uint64_t heldBytes();

  // Where bytes of the disk are, for the first one and those behind it that are in the same place.
  struct Run {
    bool isWritten;  // in memory; otherwise on the disk below
    uint64_t bytes;
  };
  Run locate(uint64_t offset, uint64_t bytes) const;

  // Reads what isWritten.
  int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) const;
  int64_t write(kj::ArrayPtr<const iovec> pieces, uint64_t offset);
  // Whole clusters become zeroes and give their memory back; of a DISCARD the rest stays as it is.
  int64_t change(DiskIo::Change change, uint64_t offset, uint64_t bytes);

 private:
  using Lock = std::lock_guard<std::mutex>;
  struct Clusters {
    uint64_t first;
    uint64_t count;
  };
  Clusters touchedBy(uint64_t offset, uint64_t bytes) const;
  uint64_t endOf(uint64_t cluster) const {
    return kj::min((cluster + 1) << clusterBits, diskShape.bytes);
  }
  int writeZeroes(uint64_t offset, uint64_t end);
  uint64_t clusterCount() const { return (diskShape.bytes >> clusterBits) + 1; }

  // Under the lock.
  int copyUncovered(uint64_t cluster, uint64_t offset, uint64_t end);
  int copyFromBelow(uint64_t cluster);
  int clearClusters(Clusters clusters);
  void forget(Clusters clusters);
  int punch(uint64_t cluster, uint64_t count);

  const int memory;
  const kj::Maybe<const KeptFile&> kept;
  kj::Own<DiskFile> rawFile;  // of a disk without a format
  kj::Own<qcow2::Layer> rawBelow;
  qcow2::Layer& below;
  const DiskShape diskShape;
  const uint32_t clusterBits;
  const uint64_t mostClusters;
  ClusterBits written;  // what reads find in memory; never cleared
  ClusterBits held;     // what has its memory, all of it written; the others are zeroes

  std::mutex mutex;  // of all that changes bits
  uint64_t heldClusters = 0;
  bool holesAreKnown = true;  // nobody died while memory was filled that is not held
  qcow2::AlignedBytes copy;
};

}  // namespace troupe::blk
