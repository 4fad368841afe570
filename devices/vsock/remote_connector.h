#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/io.h>

#include "protos/connector.capnp.h"

namespace troupe::vsock {

// The pipe to whoever finds the other ends of streams (protos/connector.capnp).
class ConnectorPipe {
 public:
  // `fd` stays open and is borrowed. `acceptor`: whom the other side offers streams.
  ConnectorPipe(kj::AsyncIoContext& io, int fd, Acceptor::Client acceptor);
  KJ_DISALLOW_COPY(ConnectorPipe);

  Connector::Client connector() { return client; }

 private:
  kj::Own<kj::AsyncCapabilityStream> stream;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
  Connector::Client client;
};

// A copy of the fd of a capability, whose owner keeps its own until the capability is
// dropped: so the end of a stream is an end. Null where it has none.
kj::AutoCloseFd duplicate(kj::Maybe<int> lent);

// One question to a connector. Destroying it gives it up.
class Question {
 public:
  // Calls `answered` from the loop once it is over.
  Question(Connector::Client connector, uint64_t cid, uint32_t port, uint32_t guestPort,
           kj::Function<void()> answered);

  bool over() const { return isOver; }
  bool found() { return socket != nullptr; }

  // Once it is over: a connected socket, or null.
  kj::AutoCloseFd take() { return kj::mv(socket); }

 private:
  bool isOver = false;
  kj::AutoCloseFd socket;
  kj::Promise<void> asking;
};

}  // namespace troupe::vsock
