#include "devices/virtio/host_inputs.h"

#include <errno.h>

#include "devices/virtio/guest_memory.h"
#include "devices/virtio/queue_flight.h"

namespace troupe::virtio {
namespace {

// More than a frame or what is read of a socket at once.
constexpr uint64_t MOST_DATA = 4 << 20;

}  // namespace

void HostInputs::called(const Call& call, int64_t result) {
  ++calls;
  uint64_t came = kj::min(sizeOf(call.incoming), uint64_t(kj::max(result, int64_t(0))));
  came = kj::min(came, MOST_DATA);
  log.add(came / sizeof(uint64_t) + 1, [&](FlightEvent::Builder event) {
    auto to = event.initCalled();
    to.setQueue(source);
    to.setNumber(BESIDE_CHAINS);
    to.setKind(call.kind);
    to.setOffset(call.offset);
    to.setBytes(call.bytes);
    to.setResult(result);
    to.setSum(call.sum);
    if (came > 0) copyFrom(call.incoming, 0, to.initData(came));
  });
}

bool HostInputs::takeArrived(HostCall::Kind kind) {
  KJ_IF_MAYBE (input, arrived()) {
    if (input->kind != kind) return false;
    called({kind, input->offset}, input->result);
    return true;
  }
  return false;
}

HostAnswer HostInputs::answer(HostCall::Kind kind) const {
  KJ_IF_MAYBE (input, said()) {
    if (input->kind == kind) return *input;
  }
  return HostAnswer{kind, 0, -EPROTO, false, nullptr};
}

size_t copyTo(kj::ArrayPtr<const iovec> pieces, kj::ArrayPtr<const kj::byte> bytes) {
  size_t done = 0;
  for (const iovec& piece : pieces) {
    size_t part = kj::min(piece.iov_len, bytes.size() - done);
    if (part > 0) copyIn(static_cast<kj::byte*>(piece.iov_base), bytes.slice(done, done + part));
    done += part;
  }
  return done;
}

}  // namespace troupe::virtio
