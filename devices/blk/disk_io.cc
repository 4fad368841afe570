#include "devices/blk/disk_io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devices/virtio/guest_memory.h"
#include "devices/virtio/spin.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::blk {
namespace {

// Large enough that a request of a page or two is one step, small enough to have one per queue.
constexpr size_t BOUNCE_BYTES = 64 << 10;
constexpr size_t BOUNCE_ALIGNMENT = 4096;

// ext4 cannot say whether a write into the page cache has to wait (for memory, for a page to be
// read). It hardly ever has, and handing it to a kernel thread costs 25 µs against 1.5. So it is
// made here, until one takes twice that: then the next ones are handed over, that reads go on.
constexpr uint64_t PATIENCE_NS = 50000;
constexpr uint32_t PATIENT_WRITES = 64;

// The system calls themselves: glibc's functions are cancellation points, for which a process with
// several threads pays twice an atomic.
int64_t transfer(long call, int fd, const iovec* pieces, size_t count, uint64_t offset, int flags) {
  for (;;) {
    long result = syscall(call, fd, pieces, count, offset, 0, flags);
    if (result >= 0) return result;
    if (errno != EINTR) return -errno;
  }
}

int64_t readNow(int fd, kj::ArrayPtr<const iovec> pieces, uint64_t offset, int flags) {
  return transfer(SYS_preadv2, fd, pieces.begin(), pieces.size(), offset, flags);
}

int64_t writeNow(int fd, kj::ArrayPtr<const iovec> pieces, uint64_t offset, int flags) {
  return transfer(SYS_pwritev2, fd, pieces.begin(), pieces.size(), offset, flags);
}

int64_t allocateNow(int fd, int mode, uint64_t offset, uint64_t bytes) {
  for (;;) {
    if (fallocate(fd, mode, offset, bytes) == 0) return 0;
    if (errno != EINTR) return -errno;
  }
}

int64_t syncNow(int fd) {
  return fdatasync(fd) == 0 ? 0 : -errno;
}

// What one system call takes. A chain never has more pieces (virtio::MAX_PIECES).
static_assert(virtio::MAX_PIECES <= IOV_MAX, "a chain is one system call");

uint64_t sizeOf(kj::ArrayPtr<const iovec> pieces) {
  uint64_t size = 0;
  for (const iovec& piece : pieces)
    size += piece.iov_len;
  return size;
}

// Calls step(pointer, bytes) for each part of the `size` bytes of `pieces` behind the first `skip`.
template <typename Step>
void forBytes(kj::ArrayPtr<const iovec> pieces, size_t skip, size_t size, Step&& step) {
  for (const iovec& piece : pieces) {
    if (size == 0) return;
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    size_t part = kj::min(piece.iov_len - skip, size);
    step(static_cast<kj::byte*>(piece.iov_base) + skip, part);
    skip = 0;
    size -= part;
  }
}

}  // namespace

DiskIo::DiskIo(const Disk& disk, uint32_t capacity, int eventFd) : disk(disk) {
  if (disk.backing() != Disk::Backing::MEMORY) ring = kj::heap<DiskRing>(disk, capacity, eventFd);
  if (disk.backing() == Disk::Backing::DIRECT) {
    bounce = kj::heapArray<kj::byte>(BOUNCE_BYTES + BOUNCE_ALIGNMENT);
  }
}

kj::Maybe<int64_t> DiskIo::read(kj::ArrayPtr<const iovec> pieces, uint64_t offset, uint64_t token) {
  switch (disk.backing()) {
    case Disk::Backing::MEMORY:
      return readNow(disk.fd(), pieces, offset, 0);
    case Disk::Backing::CACHED:
      if (canReadWithoutWaiting) {
        int64_t result = readNow(disk.fd(), pieces, offset, RWF_NOWAIT);
        if (result == -EOPNOTSUPP) canReadWithoutWaiting = false;
        if (result != -EOPNOTSUPP && result != -EAGAIN) return result;
      }
      break;
    case Disk::Backing::DIRECT:
      if (!isAligned(pieces)) return readBounced(pieces, offset);
      break;
  }
  background().read(pieces, offset, token);
  return nullptr;
}

kj::Maybe<int64_t> DiskIo::write(kj::ArrayPtr<const iovec> pieces, uint64_t offset,
                                 Durability durability, uint64_t token) {
  int flags = durability == Durability::DURABLE ? RWF_DSYNC : 0;
  switch (disk.backing()) {
    case Disk::Backing::MEMORY:
      return writeNow(disk.fd(), pieces, offset, flags);
    case Disk::Backing::CACHED:
      // A durable write waits for the device in any case.
      if (durability == Durability::VOLATILE) {
        KJ_IF_MAYBE (result, writeIntoCache(pieces, offset)) return *result;
      }
      break;
    case Disk::Backing::DIRECT:
      if (!isAligned(pieces)) return writeBounced(pieces, offset, flags);
      break;
  }
  background().write(pieces, offset, flags, token);
  return nullptr;
}

// A write into the page cache, unless that would wait, or did so lately.
kj::Maybe<int64_t> DiskIo::writeIntoCache(kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  if (canWriteWithoutWaiting) {
    int64_t result = writeNow(disk.fd(), pieces, offset, RWF_NOWAIT);
    if (result == -EAGAIN) return nullptr;
    if (result != -EOPNOTSUPP) return result;
    canWriteWithoutWaiting = false;
  }
  if (patientWrites > 0) {
    --patientWrites;
    return nullptr;
  }
  uint64_t begin = virtio::monotonicNs();
  int64_t result = writeNow(disk.fd(), pieces, offset, 0);
  if (virtio::monotonicNs() - begin > PATIENCE_NS) patientWrites = PATIENT_WRITES;
  return result;
}

kj::Maybe<int64_t> DiskIo::flush(uint64_t token) {
  if (disk.backing() == Disk::Backing::MEMORY) return syncNow(disk.fd());
  background().sync(token);
  return nullptr;
}

// How fallocate() makes it; none where it cannot.
kj::Maybe<int> DiskIo::allocationMode(Change change) const {
  if (change == Change::ZERO_KEEPING_PLACE) {
    if (canZeroInPlace) return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  } else if (canPunch) {
    return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  }
  return nullptr;
}

kj::Maybe<int64_t> DiskIo::change(Change change, uint64_t offset, uint64_t bytes,
                                  Durability durability, uint64_t token) {
  bool inMemory = disk.backing() == Disk::Backing::MEMORY;
  KJ_IF_MAYBE (mode, allocationMode(change)) {
    if (inMemory) return allocateNow(disk.fd(), *mode, offset, bytes);
    background().allocate(*mode, offset, bytes, token);
    return nullptr;
  }
  if (change == Change::DISCARD) return int64_t(bytes);
  auto zeroes = zeroPieces.upTo(bytes);
  int flags = durability == Durability::DURABLE ? RWF_DSYNC : 0;
  if (inMemory) return writeNow(disk.fd(), zeroes, offset, flags);
  background().write(zeroes, offset, flags, token);
  return nullptr;
}

int64_t DiskIo::allocated(Change change, int64_t result, uint64_t bytes) {
  if (result == 0) return bytes;
  if (result != -EOPNOTSUPP && result != -EINVAL) return result;
  (change == Change::ZERO_KEEPING_PLACE ? canZeroInPlace : canPunch) = false;
  return change == Change::DISCARD ? int64_t(bytes) : 0;
}

bool DiskIo::isAligned(kj::ArrayPtr<const iovec> pieces) const {
  uint64_t bits = 0;
  uint64_t lengthBits = 0;
  for (const iovec& piece : pieces) {
    bits |= reinterpret_cast<uintptr_t>(piece.iov_base);
    lengthBits |= piece.iov_len;
  }
  return bits % disk.bufferAlignment() == 0 && lengthBits % disk.shape().blockBytes == 0;
}

kj::ArrayPtr<kj::byte> DiskIo::bounceBuffer() {
  uintptr_t begin = reinterpret_cast<uintptr_t>(bounce.begin());
  size_t skip = (BOUNCE_ALIGNMENT - begin % BOUNCE_ALIGNMENT) % BOUNCE_ALIGNMENT;
  return bounce.slice(skip, skip + BOUNCE_BYTES);
}

// Both stop at the first step that falls short, and return what was done before it, if anything.
int64_t DiskIo::readBounced(kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  uint64_t size = sizeOf(pieces);
  uint64_t done = 0;
  while (done < size) {
    auto part = bounceBuffer().slice(0, kj::min(size - done, uint64_t(BOUNCE_BYTES)));
    iovec piece{part.begin(), part.size()};
    int64_t got = readNow(disk.fd(), kj::arrayPtr(&piece, 1), offset + done, 0);
    if (got <= 0) return done > 0 ? int64_t(done) : got;
    const kj::byte* from = part.begin();
    forBytes(pieces, done, got, [&](kj::byte* guest, size_t bytes) {
      virtio::copyIn(guest, kj::arrayPtr(from, bytes));
      from += bytes;
    });
    done += got;
    if (uint64_t(got) < part.size()) break;
  }
  return done;
}

int64_t DiskIo::writeBounced(kj::ArrayPtr<const iovec> pieces, uint64_t offset, int flags) {
  uint64_t size = sizeOf(pieces);
  uint64_t done = 0;
  while (done < size) {
    auto part = bounceBuffer().slice(0, kj::min(size - done, uint64_t(BOUNCE_BYTES)));
    kj::byte* to = part.begin();
    forBytes(pieces, done, part.size(), [&](kj::byte* guest, size_t bytes) {
      virtio::copyOut(kj::arrayPtr(to, bytes), guest);
      to += bytes;
    });
    iovec piece{part.begin(), part.size()};
    int64_t put = writeNow(disk.fd(), kj::arrayPtr(&piece, 1), offset + done, flags);
    if (put <= 0) return done > 0 ? int64_t(done) : put;
    done += put;
    if (uint64_t(put) < part.size()) break;
  }
  return done;
}

}  // namespace troupe::blk
