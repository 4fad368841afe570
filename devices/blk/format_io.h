#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/blk/blk_request.h"
#include "devices/blk/disk_io.h"
#include "devices/blk/image_disk.h"
#include "devices/blk/volatile_disk.h"

namespace troupe::blk {

// A queue's way to the guest's disk, whatever the format: DiskIo for a raw disk and, a place
// further on in the file, for the bytes of an image that are where they are. What an image has to
// find, unpack or allocate first, and what comes from a backing file, is done at once, while this
// queue's other requests wait; those of other queues do not. What was written to a volatile disk
// is in memory, and the rest of it is read as it were without. Methods are DiskIo's. Belongs to the
// thread that constructs it.
class FormatIo {
 public:
  // Tokens are below `capacity`; at most as many pieces to a request.
  FormatIo(const Disk& disk, ImageDisk* image, VolatileDisk* overlay, uint32_t capacity,
           int eventFd);
  KJ_DISALLOW_COPY(FormatIo);

  using Durability = DiskIo::Durability;
  using Change = DiskIo::Change;

  kj::Maybe<int64_t> read(kj::ArrayPtr<const iovec> pieces, uint64_t offset, uint64_t token) {
    if (overlay != nullptr) return readVolatile(pieces, offset, token);
    return readBelow(pieces, offset, token);
  }
  kj::Maybe<int64_t> write(kj::ArrayPtr<const iovec> pieces, uint64_t offset, Durability durability,
                           uint64_t token) {
    if (overlay != nullptr) return overlay->write(pieces, offset);
    if (image != nullptr) return writeImage(pieces, offset, durability, token);
    return io.write(pieces, offset, durability, token);
  }
  kj::Maybe<int64_t> flush(uint64_t token) {
    if (overlay != nullptr) return int64_t(0);  // nothing of it is to last
    if (image != nullptr && image->image().needsCommit()) return int64_t(image->image().flush());
    return io.flush(token);
  }
  bool allocates(Change change) const {
    return image == nullptr && overlay == nullptr && io.allocates(change);
  }
  kj::Maybe<int64_t> change(Change change, uint64_t offset, uint64_t bytes, Durability durability,
                            uint64_t token) {
    if (overlay != nullptr) return overlay->change(change, offset, bytes);
    if (image != nullptr) return changeImage(change, offset, bytes, durability);
    return io.change(change, offset, bytes, durability, token);
  }
  int64_t allocated(Change change, int64_t result, uint64_t bytes) {
    return io.allocated(change, result, bytes);
  }

  // The queue is used; it is not any more, and nothing of it is under way.
  void begin();
  void rest();

  void submit() { io.submit(); }
  bool hasWork() const { return io.hasWork(); }
  void setNotifications(bool on) { io.setNotifications(on); }
  template <typename Done>
  void takeCompletions(Done&& done) {
    io.takeCompletions([&](uint64_t token, int64_t result) {
      if (image != nullptr) ended(token);
      done(token, result);
    });
  }

 private:
  static constexpr uint8_t NONE = 0xff;

  kj::Maybe<int64_t> readBelow(kj::ArrayPtr<const iovec> pieces, uint64_t offset, uint64_t token) {
    if (image != nullptr) return readImage(pieces, offset, token);
    return io.read(pieces, offset, token);
  }
  kj::Maybe<int64_t> readVolatile(kj::ArrayPtr<const iovec> pieces, uint64_t offset,
                                  uint64_t token);
  kj::Maybe<int64_t> readImage(kj::ArrayPtr<const iovec> pieces, uint64_t offset, uint64_t token);
  kj::Maybe<int64_t> writeImage(kj::ArrayPtr<const iovec> pieces, uint64_t offset,
                                Durability durability, uint64_t token);
  int64_t changeImage(Change change, uint64_t offset, uint64_t bytes, Durability durability);
  kj::ArrayPtr<const iovec> clipped(kj::ArrayPtr<const iovec> pieces, uint64_t bytes,
                                    uint64_t token);
  void ended(uint64_t token);

  DiskIo io;
  ImageDisk* const image;       // null: a raw disk
  VolatileDisk* const overlay;  // null: writes go to the disk
  const uint32_t capacity;
  uint32_t lane = 0;
  bool working = false;
  // By token, for an image: the phase in which its transfer began (see InFlight).
  kj::Array<uint8_t> phases;
  // By token, unless the bytes are where they are: the part of its pieces that the kernel may still
  // have to look at.
  kj::Array<iovec> parts;
};

}  // namespace troupe::blk
