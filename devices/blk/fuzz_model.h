#pragma once

#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "devices/blk/fuzz_kernel.h"

// What a disk has to answer, from the specification alone: a request that nobody disturbs gets the
// status it must get, and a read gives what was written.
namespace troupe::blk::fuzzing {

class DiskModel {
 public:
  DiskModel();
  void reset();
  void setReadOnly(bool readOnly) { isReadOnly = readOnly; }

  // A chain left queue `queue`, and came back. Calls finding() for an answer that cannot be.
  void taken(uint16_t queue, uint16_t head, kj::ArrayPtr<const iovec> readable,
             kj::ArrayPtr<const iovec> writable);
  void returned(uint16_t queue, uint16_t head, uint32_t written);
  // The driver let go: what was under way may have been done or not.
  void dropAll();

 private:
  struct Asked {
    uint16_t queue;
    uint16_t head;
    // Nothing but this request touched what it is about, as far as is known.
    bool isAlone;
    bool isWhole;  // its pieces do not meet, and it has a header and room for a status
    uint32_t type;
    uint64_t sector;
    uint64_t guestWrites;
    uint64_t moods;
    std::vector<iovec> readable;  // behind the header
    std::vector<iovec> writable;  // before the status
    uint64_t readableBytes, writableBytes;
    const kj::byte* status;
  };
  // What `asked` changes of the disk.
  struct Range {
    uint64_t offset = 0;
    uint64_t bytes = 0;
    bool isChange = false;
    bool isZero = false;
  };
  Range changeOf(const Asked& asked) const;
  void check(const Asked& asked, uint8_t status, uint32_t written);
  void checkRead(const Asked& asked) const;
  void apply(const Asked& asked, const Range& range, bool isDone);
  void forget(const Range& range);

  std::vector<Asked> underWay;
  std::vector<Asked> spare;
  bool isReadOnly = false;
  kj::byte first[DISK_BYTES];
  kj::byte bytes[DISK_BYTES];
  bool isKnown[DISK_BYTES / virtio::BLK_SECTOR_BYTES];
  uint64_t dirtyBegin = DISK_BYTES;
  uint64_t dirtyEnd = 0;
};

}  // namespace troupe::blk::fuzzing
