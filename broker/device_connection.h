#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/common.h>
#include <kj/memory.h>

#include "protos/device.capnp.h"

namespace troupe::broker {

// The broker's end of RPC with one device process, and every bound on what that process can make
// the broker hold: the size of a message, calls under way, answers it does not read, fds. Main loop
// only.
class DeviceConnection {
 public:
  explicit DeviceConnection(kj::Own<kj::AsyncCapabilityStream> pipe);
  ~DeviceConnection() noexcept(false);
  KJ_DISALLOW_COPY(DeviceConnection);

  Device::Client bootstrap();

  // Resolves when the device hung up, or broke a rule and is hung up on.
  kj::Promise<void> onDisconnect() { return network.onDisconnect(); }

 private:
  class PatientStream;
  kj::Own<kj::AsyncCapabilityStream> pipe;
  kj::Own<PatientStream> messages;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
};

}  // namespace troupe::broker
