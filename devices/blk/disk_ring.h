#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <liburing.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/blk/disk.h"

namespace troupe::blk {

// An io_uring that can do nothing but read, write and sync one disk (restricted_ring.h).
//
// Belongs to the thread that constructs it.
class DiskRing {
 public:
  // `capacity`: requests under way at once. `eventFd` is written when there are completions and
  // notifications are on.
  DiskRing(const Disk& disk, uint32_t capacity, int eventFd);
  ~DiskRing();
  KJ_DISALLOW_COPY(DiskRing);

  // Queue one request; it goes to the kernel with submit() at the latest, which is when `pieces`
  // are read. Throws when more than `capacity` are under way.
  void read(kj::ArrayPtr<const iovec> pieces, uint64_t offset, uint64_t token);
  void write(kj::ArrayPtr<const iovec> pieces, uint64_t offset, int flags, uint64_t token);
  void sync(uint64_t token);  // fdatasync
  // fallocate(), which does not change the size: `mode` has FALLOC_FL_KEEP_SIZE.
  void allocate(int mode, uint64_t offset, uint64_t bytes, uint64_t token);

  // Hands over what is queued. What the kernel has no memory for stays queued: hasWork() says so.
  void submit();

  // Whether something is complete or still queued: then call submit(), takeCompletions().
  bool hasWork() const;

  // Calls done(token, result) for each completion; `result` is that of the system call or -errno.
  template <typename Done>
  void takeCompletions(Done&& done) {
    flushTaskWork();
    io_uring_cqe* completion;
    while (io_uring_peek_cqe(&ring, &completion) == 0) {
      uint64_t token = completion->user_data;
      int32_t result = completion->res;
      io_uring_cqe_seen(&ring, completion);
      done(token, result);
    }
  }

  // Whether completions write the eventfd. After switching on, look at hasWork() again.
  void setNotifications(bool on);

 private:
  io_uring_sqe& next();
  void finish(io_uring_sqe& entry, uint64_t token);
  void accept(int result);
  void flushTaskWork();

  io_uring ring;
};

}  // namespace troupe::blk
