#pragma once

#include <kj/common.h>
#include <kj/memory.h>

#include "devices/blk/qcow2/header.h"

namespace troupe::blk::qcow2 {

// Unpacks compressed clusters. Its memory is fixed when it is made, whatever it is given.
class Decompressor {
 public:
  virtual ~Decompressor() noexcept(false) = default;
  // Fills all of `to`; false if `from` is no compressed form of exactly so many bytes. What follows
  // that form in `from` is ignored.
  virtual bool unpack(kj::ArrayPtr<const kj::byte> from, kj::ArrayPtr<kj::byte> to) = 0;
};

kj::Own<Decompressor> makeDecompressor(Compression compression);

}  // namespace troupe::blk::qcow2
