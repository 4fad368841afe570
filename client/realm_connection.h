#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>
#include <kj/io.h>
#include <kj/string.h>

#include "protos/realm.capnp.h"

namespace troupe::client {

// Where `troupe serve` listens unless it is told otherwise, as this user.
kj::String defaultSocket();

// A connection to `troupe serve`. What is called over it is said in protos/realm.capnp; its end is
// the end of what was launched into realms that nobody else holds.
class RealmConnection {
 public:
  // Throws when nobody listens at `path`.
  RealmConnection(kj::AsyncIoContext& io, kj::StringPtr path);
  // Over a connected socket.
  RealmConnection(kj::AsyncIoContext& io, kj::AutoCloseFd connected);
  KJ_DISALLOW_COPY(RealmConnection);

  realm::Manager::Client manager();

  // Resolves when the other side has gone.
  kj::Promise<void> onDisconnect() { return network.onDisconnect(); }

 private:
  kj::Own<kj::AsyncCapabilityStream> stream;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
};

// How a file or a socket travels in a call.
Handle::Client handleOf(kj::AutoCloseFd fd);

// And how one is taken out of an answer: a copy, the caller's own.
kj::Promise<kj::AutoCloseFd> fdOf(Handle::Client handle);

}  // namespace troupe::client
