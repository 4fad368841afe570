#pragma once

#include <kj/memory.h>

#include "devices/virtio/host_inputs.h"
#include "devices/vsock/host_side.h"

namespace troupe::vsock {

// The host's end of a stream, recorded: another socket behind it, or in a replay the recording.
class FlightSocket final: public HostSocket {
 public:
  // `inner`: null in a replay. `inputs` outlives this.
  FlightSocket(virtio::HostInputs& inputs, kj::Own<HostSocket> inner)
      : inputs(inputs), inner(kj::mv(inner)) {}

  // The slot of its stream, which comes to be known after the socket.
  void belongsTo(uint16_t stream) { slot = stream; }
  // In a replay: the other side is gone.
  void hangUp() { hungUp = true; }

  ssize_t read(kj::ArrayPtr<const iovec> pieces) override;
  ssize_t write(kj::ArrayPtr<const iovec> pieces) override;
  void endSending() override;
  void endReceiving() override;
  bool peerGone() override { return inner.get() == nullptr ? hungUp : inner->peerGone(); }
  void keepLittle() override;

 private:
  virtio::HostInputs& inputs;
  kj::Own<HostSocket> inner;
  uint16_t slot = 0;
  bool hungUp = false;
};

}  // namespace troupe::vsock
