#include "devices/rng/rng_queue.h"

#include "devices/virtio/queue_flight.h"

namespace troupe::rng {

bool RngQueue::serve(uint64_t now) {
  ring.disableNotifications();
  while (limit.waitNs(now) == 0) {
    KJ_IF_MAYBE (chain, ring.pop()) {
      // What processes keep dying of gets no bytes.
      uint32_t written = chain->isDeadly() ? 0 : fill(*chain);
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
    ssize_t got = draw(chain.head(), kj::arrayPtr(static_cast<kj::byte*>(piece.iov_base), wanted));
    if (got < 0) break;
    written += got;
    if (size_t(got) < wanted) break;  // a signal cut it short: fewer bytes are a fine answer
  }
  return written;
}

// From the source, or from a recording that is replayed.
ssize_t RngQueue::draw(uint16_t head, kj::ArrayPtr<kj::byte> bytes) {
  virtio::QueueFlight* flight = ring.flight();
  if (flight == nullptr) return source.fill(bytes);
  ssize_t got;
  if (flight->isReplaying()) {
    auto answer = flight->answer(head);
    size_t known = kj::min(answer.data.size(), bytes.size());
    virtio::copyIn(bytes.begin(), answer.data.slice(0, known));
    got = answer.result < 0 ? -1 : ssize_t(known);
  } else {
    got = source.fill(bytes);
  }
  flight->called(head, {HostCall::Kind::RANDOM, 0, bytes.size()}, got);
  return got;
}

}  // namespace troupe::rng
