#pragma once

#include <capnp/rpc-twoparty.h>
#include <kj/async-io.h>

#include "protos/control.capnp.h"

namespace troupe {

// A connection to a running VM's control socket. Its answers come from a process that decodes
// strangers' bytes, so they are bounded, and shown only escaped.
class ControlClient {
 public:
  // Throws a user error if no VM of that name runs.
  ControlClient(kj::AsyncIoContext& io, kj::StringPtr name);
  KJ_DISALLOW_COPY(ControlClient);

  // Only while it is connected.
  Vm::Client vm();

  // Resolves when it is not, any more.
  kj::Promise<void> onDisconnect() { return network.onDisconnect(); }

  bool isConnected() { return !network.onDisconnect().poll(io.waitScope); }

  // Fails when the VM does not answer in time.
  template <typename T>
  T await(kj::Promise<T> promise, kj::Duration patience = PATIENCE) {
    return promise
        .exclusiveJoin(io.provider->getTimer().afterDelay(patience).then(
            [this, patience]() -> T { silent(patience); }))
        .wait(io.waitScope);
  }

  static constexpr kj::Duration PATIENCE = 5 * kj::SECONDS;

 private:
  [[noreturn]] void silent(kj::Duration patience);

  kj::AsyncIoContext& io;
  kj::String name;
  kj::Own<kj::AsyncIoStream> stream;
  capnp::TwoPartyVatNetwork network;
  capnp::RpcSystem<capnp::rpc::twoparty::VatId> rpc;
};

}  // namespace troupe
