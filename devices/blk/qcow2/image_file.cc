#include "devices/blk/qcow2/image_file.h"

#include <errno.h>

#include <cstring>

namespace troupe::blk::qcow2 {

int readFully(ImageFile& file, kj::ArrayPtr<kj::byte> bytes, uint64_t offset) {
  size_t done = 0;
  while (done < bytes.size()) {
    iovec piece{bytes.begin() + done, bytes.size() - done};
    int64_t got = file.read(kj::arrayPtr(&piece, 1), offset + done);
    if (got < 0) return int(got);
    if (got == 0) break;
    done += got;
    // An unaligned rest can only be the end of the file, where O_DIRECT cannot ask again.
    if (done % file.blockBytes() != 0) break;
  }
  memset(bytes.begin() + done, 0, bytes.size() - done);
  return 0;
}

int writeFully(ImageFile& file, kj::ArrayPtr<const kj::byte> bytes, uint64_t offset) {
  size_t done = 0;
  while (done < bytes.size()) {
    iovec piece{const_cast<kj::byte*>(bytes.begin()) + done, bytes.size() - done};
    int64_t put = file.write(kj::arrayPtr(&piece, 1), offset + done);
    if (put < 0) return int(put);
    if (put == 0) return -EIO;
    done += put;
  }
  return 0;
}

}  // namespace troupe::blk::qcow2
