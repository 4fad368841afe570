#pragma once

#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

namespace troupe::blk::qcow2 {

// A file of an image: all the library knows of the world. Every method may be called from any
// thread; results are -errno where they are negative.
class ImageFile {
 public:
  virtual ~ImageFile() noexcept(false) = default;

  // Bytes moved. Fewer than asked for: the file ends there, or the host stopped; ask again.
  virtual int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) = 0;
  virtual int64_t write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) = 0;

  // Returns when all that was written is on stable storage.
  virtual int sync() = 0;
  virtual int truncate(uint64_t bytes) = 0;
  // Gives the space of these bytes back, which may or may not read as zeroes afterwards.
  virtual int punch(uint64_t offset, uint64_t bytes) = 0;

  virtual uint64_t size() = 0;
  // What offsets, lengths and addresses of buffers must be multiples of: 512, 4096, or 1.
  virtual uint32_t blockBytes() const = 0;
};

// All of `bytes`; what lies behind the end of the file is zeroes. 0 or -errno.
int readFully(ImageFile& file, kj::ArrayPtr<kj::byte> bytes, uint64_t offset);
// All of `bytes`. 0 or -errno.
int writeFully(ImageFile& file, kj::ArrayPtr<const kj::byte> bytes, uint64_t offset);

}  // namespace troupe::blk::qcow2
