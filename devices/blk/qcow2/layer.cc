#include "devices/blk/qcow2/layer.h"

#include <errno.h>

#include <cstring>

namespace troupe::blk::qcow2 {

int64_t RawLayer::read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  int64_t got = file.read(pieces, offset);
  return got == 0 ? -EIO : got;  // the file was cut
}

int readFully(Layer& layer, kj::ArrayPtr<kj::byte> bytes, uint64_t offset) {
  size_t inside = offset >= layer.size() ? 0 : kj::min(bytes.size(), layer.size() - offset);
  memset(bytes.begin() + inside, 0, bytes.size() - inside);
  for (size_t done = 0; done < inside;) {
    iovec piece{bytes.begin() + done, inside - done};
    int64_t got = layer.read(kj::arrayPtr(&piece, 1), offset + done);
    if (got < 0) return int(got);
    done += got;
  }
  return 0;
}

}  // namespace troupe::blk::qcow2
