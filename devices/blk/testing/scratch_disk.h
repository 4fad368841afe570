#pragma once

#include <kj/array.h>
#include <kj/io.h>

#include <cstdint>

namespace troupe::blk::testing {

// Where the file of a disk lies, which decides how its bytes are moved.
enum class Medium {
  MEMORY,  // in /dev/shm, a tmpfs
  CACHED,  // in /var/tmp, through the page cache
  DIRECT   // the same with O_DIRECT
};

// Whether this machine has it: DIRECT needs a file system that is not itself in memory.
bool isAvailable(Medium medium);

// A file without a name for a disk of `bytes` bytes, in which each sector is filled with a byte of
// its own: sectorByte(sector).
class ScratchDisk {
 public:
  ScratchDisk(Medium medium, uint64_t bytes);

  int fd() const { return file; }
  uint64_t size() const { return bytes; }

  // What the file holds now, past any cache of the device's.
  kj::Array<kj::byte> contents(uint64_t offset, uint64_t size) const;
  // Cuts the file behind the disk's back.
  void truncate(uint64_t size);
  // The same file, open for reading only.
  kj::AutoCloseFd openReadOnly() const;
  // Puts the file's pages out of memory, so that reading has to wait for the device.
  void dropCache();

 private:
  uint64_t bytes;
  kj::AutoCloseFd file;
};

// A file of `bytes` bytes on a tmpfs that has room for `roomBytes` of them; a tmpfs of its own,
// which needs namespaces.
kj::AutoCloseFd onFullFileSystem(uint64_t bytes, uint64_t roomBytes);

inline kj::byte sectorByte(uint64_t sector) {
  return kj::byte(sector * 7 + 1);
}

}  // namespace troupe::blk::testing
