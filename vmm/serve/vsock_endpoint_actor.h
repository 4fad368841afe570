#pragma once

#include <kj/vector.h>

#include "protos/realm.capnp.h"
#include "vmm/serve/session.h"
#include "vmm/serve/vsock_exchange.h"

namespace troupe::realm {

// One client's way to the host's side of a realm: interface HostVsockEndpoint in
// protos/realm.capnp. Where it listens ends with it.
class VsockEndpointActor final: public HostVsockEndpoint::Server {
 public:
  VsockEndpointActor(kj::Own<VsockExchange> exchange, kj::Own<Session> session);

  kj::Promise<void> listen(ListenContext context) override;
  kj::Promise<void> connect(ConnectContext context) override;

 private:
  VsockStatus listen(uint32_t port, HostVsockAcceptor::Client acceptor);

  kj::Own<VsockExchange> exchange;
  kj::Own<Session> session;
  Session::Thing counted{*session};
  struct Listener {
    kj::Own<Session::Thing> counted;
    kj::Own<VsockExchange::Listening> listening;
  };
  kj::Vector<Listener> listeners;
};

}  // namespace troupe::realm
