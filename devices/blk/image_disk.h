#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/memory.h>
#include <kj/string.h>

#include <atomic>
#include <cstdint>

#include "devices/blk/disk.h"
#include "devices/blk/disk_file.h"
#include "devices/blk/qcow2/chain.h"

namespace troupe::blk {

// The guest's disk in a qcow2 image, which lies in a file (a Disk) and perhaps in backing files.
class ImageDisk {
 public:
  // A backing file: an fd that is borrowed, and what the configuration says of it.
  struct Backing {
    int fd;
    qcow2::ImageFormat format;
    kj::StringPtr path;
  };
  // Whether the image is this process's from the beginning, or until takeOver() another's, whose
  // tables are only looked at to learn what the disk is.
  enum class Owner { THIS_PROCESS, ONE_BEFORE };

  // `path`: of the image, as the configuration has it. `kept`: what is written first to memory that
  // outlives the process (MappingJournal), if it is to be replaced. What is passed must outlive
  // this. Throws TRP-blk-….
  ImageDisk(Disk& disk, kj::StringPtr path, kj::ArrayPtr<const Backing> backing,
            kj::ArrayPtr<kj::byte> kept = nullptr, Owner owner = Owner::THIS_PROCESS);
  KJ_DISALLOW_COPY(ImageDisk);

  // The process before has ended: goes on where it stopped. Saves what that one had not, which
  // takes as long as the disk does. No queue is at work. Throws TRP-blk-….
  void takeOver();

  qcow2::Image& image() { return *chain; }
  // Capacity and blocks as the guest has them.
  DiskShape shape() const {
    return {bytes.load(std::memory_order_relaxed), fixedShape.blockBytes, fixedShape.readOnly};
  }
  // Any thread; waits for the disk. 0 or -errno.
  int grow(uint64_t newBytes);
  uint32_t clusterBytes() const { return chain->header().geometry.clusterBytes(); }
  // By their index in extents; 0 is the disk itself.
  DiskFile& file(uint32_t index) { return *files[index]; }

  // From any thread. A lane of the image's InFlight for a queue that is new.
  uint32_t takeLane() { return lanes.fetch_add(1); }
  // Queues at work: when the last one rests, the image is taken to the disk and marked clean.
  void queueBegins() { working.fetch_add(1); }
  void queueRests() {
    if (working.fetch_sub(1) == 1) chain->close();  // what fails is tried again the next time
  }

 private:
  void open(qcow2::Access access);

  Disk& disk;
  Owner owner;
  kj::Array<kj::Own<Disk>> backingDisks;
  kj::Array<kj::Own<DiskFile>> files;
  kj::Array<qcow2::ChainFile> chainFiles;
  kj::Maybe<qcow2::MappingJournal> journal;
  kj::Own<qcow2::Image> chain;
  DiskShape fixedShape;  // but for its size
  std::atomic<uint64_t> bytes;
  std::atomic<uint32_t> lanes{0};
  std::atomic<uint32_t> working{0};
};

}  // namespace troupe::blk
