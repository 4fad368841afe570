#pragma once

#include <kj/common.h>
#include <kj/io.h>
#include <kj/string.h>

#include <atomic>
#include <cstdint>

#include "devices/blk/blk_request.h"
#include "devices/blk/ring_rules.h"

namespace troupe::blk {

// The file or block device behind a disk, and what was found out about it once, at the start.
// Immutable but for its size, and safe on any thread.
class Disk {
 public:
  enum class Access { READ_WRITE, READ_ONLY };

  // Which way its bytes are moved best.
  enum class Backing {
    MEMORY,  // tmpfs and the like: a transfer only copies, so a plain system call is all
    CACHED,  // through the page cache: may have to wait for a device
    DIRECT   // O_DIRECT: always waits for a device, and wants aligned buffers
  };

  // What is in it: the guest's bytes as they are; the same of a backing file, which may have any
  // length; or an image, whose length says nothing of the disk's.
  enum class Contents { RAW, BACKING, IMAGE };

  // Asks the file; throws (TRP-blk-…) for one that cannot be such a disk. `fd` is borrowed, and so
  // is what `rings` points to: the rules for every ring that works on it.
  Disk(int fd, Access access, const RingRules& rings = builtInRingRules(),
       Contents contents = Contents::RAW);
  struct Topology;
  // As it is said, whatever the file is, which will not be used (a replay).
  Disk(int fd, const DiskShape& shape, const Topology& topology);
  KJ_DISALLOW_COPY(Disk);

  int fd() const { return file; }
  DiskShape shape() const {
    return {bytes.load(std::memory_order_relaxed), fixedShape.blockBytes, fixedShape.readOnly};
  }
  Backing backing() const { return kind; }
  const RingRules& ringRules() const { return rings; }

  // The file has `bytes` bytes now, no fewer than before; what is behind them is not asked. Looks
  // whether they can be read, waiting for it. 0 or -errno; -ENODATA: the file ends before them.
  int grow(uint64_t bytes);

  // Asks for its size again: somebody else may have changed it since it was opened. A raw disk does
  // not become smaller, since a driver knows it. Nobody else uses it meanwhile. Throws (TRP-blk-…).
  void askAgain();

  // What the host says of the blocks beneath (§5.2.4, TOPOLOGY), in units of shape().blockBytes.
  struct Topology {
    uint8_t physicalExponent = 0;  // a physical block is 1 << this many
    uint8_t alignmentOffset = 0;   // where the first aligned one is
    uint16_t minBlocks = 0;        // suggested least transfer; 0: none
    uint32_t optimalBlocks = 0;    // suggested best; 0: none
  };
  const Topology& topology() const { return diskTopology; }

  // With DIRECT: what the address of each buffer must be a multiple of (and its length of
  // shape().blockBytes). Otherwise 1.
  uint32_t bufferAlignment() const { return alignment; }

 private:
  const int file;
  const RingRules rings;
  const Contents contents;
  Backing kind;
  uint32_t alignment = 1;
  DiskShape fixedShape;  // but for its size
  std::atomic<uint64_t> bytes;
  Topology diskTopology;
};

}  // namespace troupe::blk
