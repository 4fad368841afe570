#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/io.h>
#include <kj/string.h>

#include "protos/connector.capnp.h"
#include "vmm/channels/peer_stream.h"

namespace troupe {

// Finds who listens on the host for streams that a guest begins (protos/connector.capnp): whoever
// listens at "SOCKET_PORT". Only `troupe` can, since a unix socket has its name among the user's
// files; of the stream itself it reads nothing, and what the device says is two numbers.
//
// The device may be anybody's by now: what it has asked and not finished, and what it was given and
// has not dropped, is bounded.
class VsockConnector final {
 public:
  // `connector`: whoever answers in the place of the host.
  VsockConnector(kj::AsyncIoContext& io, kj::AutoCloseFd pipe, Connector::Client connector);

  // `socket`: null where the guest is to reach nobody.
  VsockConnector(kj::AsyncIoContext& io, kj::AutoCloseFd pipe, kj::Maybe<kj::StringPtr> socket);
  KJ_DISALLOW_COPY(VsockConnector);

  // Whom the device's process lets offer streams to its guest. As long as this object.
  Acceptor::Client device();

 private:
  kj::Own<kj::AsyncCapabilityStream> stream;
  PeerStream messages;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
};

// The connector itself.
kj::Own<Connector::Server> makeHostConnector(kj::Timer& timer, kj::Maybe<kj::StringPtr> socket);

}  // namespace troupe
