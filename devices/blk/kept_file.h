#pragma once

#include <errno.h>
#include <kj/common.h>
#include <kj/debug.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdint>

#include "devices/virtio/ram_mapping.h"

namespace troupe::blk {

// A memfd from `troupe` that outlives the process: what is on its way to the disk, for the process
// that takes this one's place. The fd is borrowed.
class KeptFile {
 public:
  explicit KeptFile(int fd)
      : fd(fd), size(sizeOf(fd)), mapping(fd, virtio::RamAccess::WRITABLE, 0, size) {}
  KJ_DISALLOW_COPY(KeptFile);

  kj::ArrayPtr<kj::byte> memory() const { return kj::arrayPtr(mapping.begin(), size); }

  // visit(offset, word) for each word of the range, relative to its start, that is not 0. What was
  // never written is skipped, and stays a hole: a look through the mapping would fill it.
  template <typename Visit>
  void forData(uint64_t first, uint64_t bytes, Visit&& visit) const {
    uint64_t end = first + bytes;
    uint64_t words[512];
    for (uint64_t at = first; at < end;) {
      off_t data = lseek(fd, at, SEEK_DATA);
      if (data < 0 && errno == ENXIO) return;  // nothing more
      KJ_SYSCALL(data);
      at = kj::max(at, uint64_t(data));
      if (at >= end) return;
      // Up to the next page, which may be a hole again.
      uint64_t count = kj::min(sizeof(words) - at % sizeof(words), end - at);
      iovec piece{words, count};
      ssize_t got;
      // What queues' threads may call.
      KJ_SYSCALL(got = syscall(SYS_preadv2, fd, &piece, 1, at, 0, 0));
      KJ_REQUIRE(uint64_t(got) == count, "a kept file has lost its end", at);
      for (uint64_t i = 0; i < count / 8; i++) {
        if (words[i] != 0) visit(at - first + i * 8, words[i]);
      }
      at += count;
    }
  }

 private:
  static uint64_t sizeOf(int fd) {
    off_t size;
    KJ_SYSCALL(size = lseek(fd, 0, SEEK_END));
    return size;
  }

  const int fd;
  const uint64_t size;
  virtio::Mapping mapping;
};

}  // namespace troupe::blk
