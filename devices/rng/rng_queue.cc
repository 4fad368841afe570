#include "devices/rng/rng_queue.h"

namespace troupe::rng {

bool RngQueue::serve(uint64_t now) {
  ring.disableNotifications();
  while (limit.waitNs(now) == 0) {
    KJ_IF_MAYBE (chain, ring.pop()) {
      uint32_t written = fill(*chain);
      limit.take(written, now);
      ring.push(kj::mv(*chain), written);
    } else {
      break;
    }
  }
  bool interrupt = ring.publish();
  ring.enableNotifications();
  return interrupt;
}

// Fills the front of what is writable and returns how many bytes that were. None is a request with
// nothing to fill, or a host that has no random bytes: the driver sees a used length of 0.
uint32_t RngQueue::fill(virtio::Chain& chain) {
  uint32_t written = 0;
  for (const iovec& piece : chain.writable()) {
    size_t wanted = kj::min(piece.iov_len, MAX_BYTES_PER_REQUEST - written);
    if (wanted == 0) break;
    ssize_t got = source.fill(kj::arrayPtr(static_cast<kj::byte*>(piece.iov_base), wanted));
    if (got < 0) break;
    written += got;
    if (size_t(got) < wanted) break;  // a signal cut it short: fewer bytes are a fine answer
  }
  return written;
}

}  // namespace troupe::rng
