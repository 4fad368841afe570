#include "devices/blk/disk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devices/blk/qcow2/aligned_bytes.h"
#include "devices/blk/qcow2/pieces.h"
#include "devices/virtio/guest_memory.h"

namespace troupe::blk {
namespace {

template <typename Call>
int64_t untilDone(Call&& call) {
  for (;;) {
    int64_t result = call();
    if (result >= 0) return result;
    if (errno != EINTR) return -errno;
  }
}

int64_t transfer(long call, int fd, kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  return untilDone([&] { return syscall(call, fd, pieces.begin(), pieces.size(), offset, 0, 0); });
}

}  // namespace

uint32_t DiskFile::blockBytes() const {
  return disk.backing() == Disk::Backing::DIRECT ? disk.shape().blockBytes : 1;
}

// O_DIRECT takes no buffer that is not aligned as the file system asks.
bool DiskFile::needsCopy(kj::ArrayPtr<const iovec> pieces) const {
  if (disk.backing() != Disk::Backing::DIRECT) return false;
  uint64_t addresses = 0;
  uint64_t lengths = 0;
  for (const iovec& piece : pieces) {
    addresses |= reinterpret_cast<uintptr_t>(piece.iov_base);
    lengths |= piece.iov_len;
  }
  return addresses % disk.bufferAlignment() != 0 || lengths % blockBytes() != 0;
}

int64_t DiskFile::read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  if (!needsCopy(pieces)) return transfer(SYS_preadv2, disk.fd(), pieces, offset);
  uint64_t bytes = qcow2::sizeOf(pieces);
  qcow2::AlignedBytes copy((bytes + blockBytes() - 1) / blockBytes() * blockBytes());
  iovec whole{copy.begin(), copy.size()};
  int64_t got = transfer(SYS_preadv2, disk.fd(), kj::arrayPtr(&whole, 1), offset);
  if (got <= 0) return got;
  got = kj::min(uint64_t(got), bytes);
  qcow2::storeBytes(pieces, copy.all().slice(0, got));
  return got;
}

int64_t DiskFile::write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  if (!needsCopy(pieces)) return transfer(SYS_pwritev2, disk.fd(), pieces, offset);
  qcow2::AlignedBytes copy(qcow2::sizeOf(pieces));
  kj::byte* to = copy.begin();
  qcow2::forRuns(pieces, 0, copy.size(), [&](kj::byte* from, size_t count) {
    virtio::copyOut(kj::arrayPtr(to, count), from);
    to += count;
  });
  iovec whole{copy.begin(), copy.size()};
  return transfer(SYS_pwritev2, disk.fd(), kj::arrayPtr(&whole, 1), offset);
}

int DiskFile::sync() {
  return untilDone([&] { return fdatasync(disk.fd()); });
}

int DiskFile::truncate(uint64_t bytes) {
  return untilDone([&] { return ftruncate(disk.fd(), bytes); });
}

int DiskFile::punch(uint64_t offset, uint64_t bytes) {
  return untilDone([&] {
    return fallocate(disk.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
  });
}

}  // namespace troupe::blk
