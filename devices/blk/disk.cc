#include "devices/blk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstring>

#include "devices/blk/qcow2/aligned_bytes.h"

namespace troupe::blk {
namespace {

constexpr uint32_t COMMON_BLOCK_BYTES = 4096;  // what a disk asks for that does not take 512

uint64_t sizeOf(int fd, const struct stat& info) {
  if (S_ISREG(info.st_mode)) return info.st_size;
  KJ_REQUIRE(S_ISBLK(info.st_mode),
             "TRP-blk-001: the disk is neither a regular file nor a block device", info.st_mode);
  uint64_t bytes;
  KJ_SYSCALL(ioctl(fd, BLKGETSIZE64, &bytes), "TRP-blk-002: the size of the disk cannot be read");
  return bytes;
}

bool livesInMemory(int fd, const struct stat& info) {
  if (!S_ISREG(info.st_mode)) return false;
  struct statfs system;
  KJ_SYSCALL(fstatfs(fd, &system), "TRP-blk-002: the file system of the disk cannot be asked");
  return system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC;
}

// The two alignments of O_DIRECT.
struct Alignment {
  uint32_t buffer;
  uint32_t offset;
};

// What a file system says that does not tell through statx(): found by reading one sector.
Alignment tryAlignment(int fd) {
  alignas(COMMON_BLOCK_BYTES) kj::byte block[COMMON_BLOCK_BYTES];
  bool takesSectors = pread(fd, block, virtio::BLK_SECTOR_BYTES, 0) >= 0 || errno != EINVAL;
  uint32_t unit = takesSectors ? virtio::BLK_SECTOR_BYTES : COMMON_BLOCK_BYTES;
  return {unit, unit};
}

Alignment alignmentOf(int fd) {
#ifdef STATX_DIOALIGN
  struct statx info = {};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
      (info.stx_mask & STATX_DIOALIGN) && info.stx_dio_offset_align != 0) {
    return {kj::max(info.stx_dio_mem_align, 1u),
            kj::max(info.stx_dio_offset_align, virtio::BLK_SECTOR_BYTES)};
  }
#endif
  return tryAlignment(fd);
}

// What the file's system, or the block device, tells of its blocks. All of it is advice: a value
// that does not fit is left out.
Disk::Topology topologyOf(int fd, const struct stat& info, uint32_t block) {
  uint32_t physical = 0, least = 0, optimal = 0;
  int offset = 0;
  if (S_ISBLK(info.st_mode)) {
    if (ioctl(fd, BLKPBSZGET, &physical) != 0) physical = 0;
    if (ioctl(fd, BLKIOMIN, &least) != 0) least = 0;
    if (ioctl(fd, BLKIOOPT, &optimal) != 0) optimal = 0;
    if (ioctl(fd, BLKALIGNOFF, &offset) != 0) offset = 0;
  } else {
    physical = least = info.st_blksize;
  }
  Disk::Topology topology;
  while (topology.physicalExponent < 8 && (uint64_t(block) << topology.physicalExponent) < physical)
    topology.physicalExponent++;
  if (offset > 0 && offset / block <= UINT8_MAX) topology.alignmentOffset = offset / block;
  if (least / block <= UINT16_MAX) topology.minBlocks = least / block;
  topology.optimalBlocks = optimal / block;
  return topology;
}

void requireAccess(int flags, Disk::Access access) {
  int mode = flags & O_ACCMODE;
  KJ_REQUIRE(mode == O_RDWR || (mode == O_RDONLY && access == Disk::Access::READ_ONLY),
             "TRP-blk-003: the disk is to be written but its file is open for reading only");
}

}  // namespace

Disk::Disk(int fd, Access access, const RingRules& rings, Contents contents)
    : file(fd), rings(rings), contents(contents) {
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info), "TRP-blk-002: the disk cannot be asked what it is");
  int flags;
  KJ_SYSCALL(flags = fcntl(fd, F_GETFL), "TRP-blk-002: the disk cannot be asked how it is open");
  requireAccess(flags, access);

  uint64_t size = sizeOf(fd, info);
  KJ_REQUIRE(contents != Contents::IMAGE || S_ISREG(info.st_mode),
             "TRP-blk-027: a qcow2 image lies in a regular file", info.st_mode);
  KJ_REQUIRE(contents != Contents::RAW || (size > 0 && size % virtio::BLK_SECTOR_BYTES == 0),
             "TRP-blk-004: a raw disk is a multiple of 512 bytes, at least 512", size);

  uint32_t block = virtio::BLK_SECTOR_BYTES;
  if (livesInMemory(fd, info)) {
    kind = Backing::MEMORY;
  } else if (flags & O_DIRECT) {
    kind = Backing::DIRECT;
    Alignment found = alignmentOf(fd);
    alignment = found.buffer;
    block = found.offset;
  } else {
    kind = Backing::CACHED;
  }
  KJ_REQUIRE(contents != Contents::RAW || size >= block,
             "TRP-blk-005: the disk is smaller than one block of what O_DIRECT can transfer; "
             "open it without direct",
             size, block);
  diskTopology = topologyOf(fd, info, block);
  uint64_t unused = contents == Contents::RAW ? size % block : 0;
  fixedShape = DiskShape{size - unused, block, access == Access::READ_ONLY};
  bytes = fixedShape.bytes;
}

Disk::Disk(int fd, const DiskShape& shape, const Topology& topology)
    : file(fd),
      rings(builtInRingRules()),
      contents(Contents::RAW),
      kind(Backing::MEMORY),
      fixedShape(shape),
      bytes(shape.bytes),
      diskTopology(topology) {
  KJ_REQUIRE(shape.blockBytes >= virtio::BLK_SECTOR_BYTES && shape.bytes >= shape.blockBytes,
             "TRP-blk-004: a recorded disk has no such size", shape.bytes, shape.blockBytes);
}

void Disk::askAgain() {
  off_t end;
  KJ_SYSCALL(end = lseek(file, 0, SEEK_END), "TRP-blk-002: the size of the disk cannot be read");
  uint64_t size = end;
  if (contents == Contents::RAW) {
    size = kj::max(size - size % fixedShape.blockBytes, bytes.load(std::memory_order_relaxed));
  }
  bytes.store(size, std::memory_order_relaxed);
}

int Disk::grow(uint64_t newBytes) {
  uint32_t block = fixedShape.blockBytes;
  uint64_t usable = newBytes - newBytes % block;
  if (usable < bytes) return -EINVAL;
  qcow2::AlignedBytes last(block);
  iovec piece{last.begin(), block};
  for (;;) {
    ssize_t got = preadv2(file, &piece, 1, usable - block, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -errno;
    if (got != ssize_t(block)) return -ENODATA;
    bytes.store(usable);
    return 0;
  }
}

}  // namespace troupe::blk
