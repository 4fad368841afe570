#include "devices/net/flight_backend.h"

#include <kj/debug.h>

namespace troupe::net {

virtio::HostInputs* FlightBackend::inputs() {
  KJ_IF_MAYBE (its, record) {
    return its;
  }
  return nullptr;
}

Backend::Sent FlightBackend::send(kj::ArrayPtr<const OutgoingFrame> frames) {
  if (inner == nullptr) return {Outcome::DONE, frames.size()};
  return inner->send(frames);
}

Backend::Received FlightBackend::receive(const IncomingRoom& room) {
  if (inner == nullptr) return receiveAgain(room);
  kj::ArrayPtr<iovec> pieces = room.pieces;
  iovec first = pieces[1];  // the inner one's to change
  auto received = inner->receive(room);
  if (received.outcome != Outcome::DONE) return received;
  pieces[1] = first;
  pieces[0] = iovec{&room.header, sizeof(room.header)};
  virtio::HostInputs::Call call{HostCall::Kind::INPUT, room.rules, received.bytes};
  call.incoming = pieces;
  KJ_ASSERT_NONNULL(record).called(call, int64_t(sizeof(room.header)) + received.bytes);
  return received;
}

Backend::Received FlightBackend::receiveAgain(const IncomingRoom& room) {
  auto& its = KJ_ASSERT_NONNULL(record);
  KJ_IF_MAYBE (input, its.arrived()) {
    bool isFrame = input->kind == HostCall::Kind::INPUT && input->offset == room.rules &&
                   input->result >= int64_t(sizeof(room.header)) && input->result <= INT32_MAX;
    if (!isFrame) return {Outcome::LATER, 0};
    uint32_t bytes = uint32_t(input->result - sizeof(room.header));
    kj::ArrayPtr<iovec> pieces = room.pieces;
    pieces[0] = iovec{&room.header, sizeof(room.header)};
    room.header = {};
    virtio::copyTo(pieces, input->data);
    virtio::HostInputs::Call call{HostCall::Kind::INPUT, room.rules, bytes};
    call.incoming = pieces;
    its.called(call, input->result);
    return {Outcome::DONE, bytes};
  }
  return {Outcome::LATER, 0};
}

}  // namespace troupe::net
