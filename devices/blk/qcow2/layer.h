#pragma once

#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/blk/qcow2/image_file.h"

namespace troupe::blk::qcow2 {

// Where bytes of a disk are right now.
struct Extent {
  enum class Kind : uint8_t {
    DATA,    // in file `file` of the chain, at `offset`
    ZEROES,  //
    SLOW     // to be had from Layer::read(), or to be located again after Layer::prepare()
  };
  Kind kind;
  uint8_t file;
  uint64_t offset;
  uint64_t bytes;  // from where was asked on; at least 1
};

// One image of a chain, seen as the disk it makes together with those below. Any thread.
class Layer {
 public:
  virtual ~Layer() noexcept(false) = default;

  virtual uint64_t size() const = 0;

  // For at least one byte of the disk, all of them inside. Neither waits nor locks.
  virtual Extent locate(uint64_t offset, uint64_t bytes) const = 0;

  // The three below may wait, and may be kept waiting by another thread in one of them.
  // Fetches what locate() lacks to know the place of `offset`. 0 or -errno.
  virtual int prepare(uint64_t offset) = 0;
  // Reads into `pieces`, guest memory or not; at least one byte, as many as lie together, or
  // -errno.
  virtual int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) = 0;
};

// A raw file.
class RawLayer final: public Layer {
 public:
  RawLayer(ImageFile& file, uint8_t index, uint64_t bytes)
      : file(file), index(index), bytes(bytes) {}

  uint64_t size() const override { return bytes; }
  Extent locate(uint64_t offset, uint64_t count) const override {
    return {Extent::Kind::DATA, index, offset, kj::min(count, bytes - offset)};
  }
  int prepare(uint64_t) override { return 0; }
  int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override;

 private:
  ImageFile& file;
  const uint8_t index;
  const uint64_t bytes;
};

// All of `bytes`, through as many reads as it takes; what lies behind the end is zeroes. 0 or
// -errno.
int readFully(Layer& layer, kj::ArrayPtr<kj::byte> bytes, uint64_t offset);

}  // namespace troupe::blk::qcow2
