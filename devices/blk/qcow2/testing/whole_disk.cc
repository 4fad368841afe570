#include "devices/blk/qcow2/testing/whole_disk.h"

#include <errno.h>
#include <kj/debug.h>

namespace troupe::blk::qcow2::testing {

int WholeDisk::read(uint64_t offset, kj::ArrayPtr<kj::byte> bytes) {
  for (size_t done = 0; done < bytes.size();) {
    iovec piece{bytes.begin() + done, bytes.size() - done};
    image.prepare(offset + done);
    auto extent = image.locate(offset + done, piece.iov_len);
    KJ_ASSERT(extent.bytes >= 1 && extent.bytes <= piece.iov_len);
    int64_t got;
    if (extent.kind == Extent::Kind::ZEROES) {
      memset(piece.iov_base, 0, extent.bytes);
      got = extent.bytes;
    } else if (extent.kind == Extent::Kind::DATA && extent.file == 0) {
      piece.iov_len = extent.bytes;
      got = file.read(kj::arrayPtr(&piece, 1), extent.offset);
      if (got == 0) return -EIO;
    } else {
      got = image.read(kj::arrayPtr(&piece, 1), offset + done);
    }
    if (got < 0) return int(got);
    done += got;
  }
  return 0;
}

int WholeDisk::write(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes) {
  for (size_t done = 0; done < bytes.size();) {
    iovec piece{const_cast<kj::byte*>(bytes.begin()) + done, bytes.size() - done};
    auto extent = image.locateForWrite(offset + done, piece.iov_len);
    int64_t put;
    if (extent.kind == Extent::Kind::DATA) {
      piece.iov_len = extent.bytes;
      put = file.write(kj::arrayPtr(&piece, 1), extent.offset);
    } else {
      put = image.write(kj::arrayPtr(&piece, 1), offset + done);
    }
    if (put < 0) return int(put);
    done += put;
  }
  return 0;
}

kj::Array<kj::byte> WholeDisk::contents() {
  auto bytes = kj::heapArray<kj::byte>(image.size());
  int error = read(0, bytes);
  KJ_REQUIRE(error == 0, "the disk cannot be read", error);
  return bytes;
}

kj::Own<Image> openAlone(ImageFile& file, Access access, kj::Maybe<MappingJournal&> kept) {
  ChainFile only{file, ImageFormat::QCOW2, "image.qcow2"};
  return openChain(kj::arrayPtr(&only, 1), access, kept);
}

}  // namespace troupe::blk::qcow2::testing
