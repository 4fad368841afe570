#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

#include "devices/blk/qcow2/chain.h"

namespace troupe::blk::qcow2::testing {

// An open image as a guest sees it: whole transfers, by the ways the device takes.
class WholeDisk {
 public:
  explicit WholeDisk(Image& image, ImageFile& file) : image(image), file(file) {}

  // 0 or -errno.
  int read(uint64_t offset, kj::ArrayPtr<kj::byte> bytes);
  int write(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes);
  // All of it; throws if it cannot be read.
  kj::Array<kj::byte> contents();

 private:
  Image& image;
  ImageFile& file;
};

// An image without backing files.
kj::Own<Image> openAlone(ImageFile& file, Access access = Access::READ_WRITE,
                         kj::Maybe<MappingJournal&> kept = nullptr);

}  // namespace troupe::blk::qcow2::testing
