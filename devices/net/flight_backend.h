#pragma once

#include <kj/memory.h>

#include "devices/net/backend.h"

namespace troupe::net {

// A queue pair's way to the host, recorded: another backend behind it, or in a replay the
// recording. What is sent is recorded for the chains it came in (transmit_ring.h), what comes is
// recorded here.
class FlightBackend final: public Backend {
 public:
  // `inner`: borrowed; null in a replay.
  explicit FlightBackend(Backend* inner) : inner(inner) {}

  // Before anything else, once.
  void recordIn(virtio::FlightLog& log, uint16_t source) { record.emplace(log, source); }

  virtio::HostInputs* inputs() override;
  int fd() const override { return inner == nullptr ? -1 : inner->fd(); }
  size_t batch() const override { return inner == nullptr ? 1 : inner->batch(); }
  Sent send(kj::ArrayPtr<const OutgoingFrame> frames) override;
  Received receive(const IncomingRoom& room) override;
  bool hasInput() const override { return inner != nullptr && inner->hasInput(); }

 private:
  Received receiveAgain(const IncomingRoom& room);

  Backend* const inner;
  kj::Maybe<virtio::HostInputs> record;
};

}  // namespace troupe::net
