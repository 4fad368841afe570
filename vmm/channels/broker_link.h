#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/io.h>

#include "protos/broker.capnp.h"
#include "vmm/channels/peer_stream.h"

namespace troupe {

// `troupe`'s end of the pipe to the broker. The broker holds the largest surface a guest can
// attack, so its messages are bounded and its fds, if it sends any, are closed.
class BrokerLink {
 public:
  BrokerLink(kj::AsyncIoContext& io, kj::AutoCloseFd pipe);
  KJ_DISALLOW_COPY(BrokerLink);

  Broker::Client broker();

 private:
  kj::Own<kj::AsyncCapabilityStream> stream;
  PeerStream messages;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
};

}  // namespace troupe
