#include "devices/vsock/flight_socket.h"

#include "devices/virtio/queue_flight.h"

namespace troupe::vsock {

ssize_t FlightSocket::read(kj::ArrayPtr<const iovec> pieces) {
  ssize_t result;
  if (inner.get() != nullptr) {
    result = inner->read(pieces);
  } else {
    auto answer = inputs.answer(HostCall::Kind::READ);
    size_t copied = virtio::copyTo(pieces, answer.data);
    // Whoever made the recording may have it say more than it has.
    result = answer.result < 0 ? ssize_t(answer.result) : ssize_t(copied);
  }
  virtio::HostInputs::Call call{HostCall::Kind::READ, slot, virtio::sizeOf(pieces)};
  call.incoming = pieces;
  inputs.called(call, result);
  return result;
}

ssize_t FlightSocket::write(kj::ArrayPtr<const iovec> pieces) {
  uint64_t size = virtio::sizeOf(pieces);
  ssize_t result;
  if (inner.get() != nullptr) {
    result = inner->write(pieces);
  } else {
    auto answer = inputs.answer(HostCall::Kind::WRITE);
    result = ssize_t(kj::min(answer.result, int64_t(size)));
  }
  virtio::HostInputs::Call call{HostCall::Kind::WRITE, slot, size};
  call.sum = virtio::sumOf(pieces, size);
  inputs.called(call, result);
  return result;
}

void FlightSocket::endSending() {
  if (inner.get() != nullptr) inner->endSending();
  inputs.called({HostCall::Kind::END_SENDING, slot}, 0);
}

void FlightSocket::endReceiving() {
  if (inner.get() != nullptr) inner->endReceiving();
  inputs.called({HostCall::Kind::END_RECEIVING, slot}, 0);
}

void FlightSocket::keepLittle() {
  if (inner.get() != nullptr) inner->keepLittle();
}

}  // namespace troupe::vsock
