#include "vmm/serve/vsock_endpoint_actor.h"

#include <capnp/capability.h>
#include <fcntl.h>
#include <kj/debug.h>

namespace troupe::realm {

namespace {

// What `given` leads to once it is known.
capnp::Capability::Client resolved(capnp::Capability::Client given) {
  auto hook = capnp::ClientHook::from(kj::mv(given));
  for (;;) {
    KJ_IF_MAYBE (further, hook->getResolved()) {
      hook = further->addRef();
    } else {
      return capnp::Capability::Client(kj::mv(hook));
    }
  }
}

bool isHere(capnp::Capability::Client given, capnp::Capability::Client oneHere) {
  return capnp::ClientHook::from(kj::mv(given))->getBrand() ==
         capnp::ClientHook::from(kj::mv(oneHere))->getBrand();
}

}  // namespace

VsockEndpointActor::VsockEndpointActor(kj::Own<VsockExchange> exchange, kj::Own<Session> session)
    : exchange(kj::mv(exchange)), session(kj::mv(session)) {}

// An acceptor lasts as long as this does. One that were an object of this process could hold this,
// or a realm, and so both would outlive the client.
kj::Promise<void> VsockEndpointActor::listen(ListenContext context) {
  context.allowCancellation();  // who gives a promise may never keep it
  capnp::Capability::Client given = context.getParams().getAcceptor();
  auto known = session->inTime(given, given.whenResolved().then([]() { return true; }));
  return known.then([this, context, given = kj::mv(given)](bool) mutable {
    auto acceptor = resolved(kj::mv(given));
    KJ_REQUIRE(!isHere(acceptor, thisCap()), "an acceptor is an object of whoever listens");
    context.getResults().setStatus(
        listen(context.getParams().getPort(), acceptor.castAs<HostVsockAcceptor>()));
  });
}

VsockStatus VsockEndpointActor::listen(uint32_t port, HostVsockAcceptor::Client acceptor) {
  if (!session->hasRoom()) return VsockStatus::NO_RESOURCES;
  kj::Own<VsockExchange::Listening> one;
  auto status = exchange->listen(port, kj::mv(acceptor), session->asker(), one);
  if (status == VsockStatus::OK) listeners.add(Listener{session->reserve(), kj::mv(one)});
  return status;
}

kj::Promise<void> VsockEndpointActor::connect(ConnectContext context) {
  context.allowCancellation();
  auto handle = context.getParams().getSocket();
  auto lent = session->inTime(handle, handle.getFd());
  return lent
      .then([this, context,
             handle = kj::mv(handle)](kj::Maybe<int> fd) mutable -> kj::Promise<VsockStatus> {
        auto params = context.getParams();
        uint32_t cid = params.getCid(), port = params.getPort();
        KJ_IF_MAYBE (number, fd) {
          kj::AutoCloseFd copy(fcntl(*number, F_DUPFD_CLOEXEC, 3));
          handle = nullptr;  // so that the stream ends when its ends do
          context.releaseParams();
          if (copy == nullptr) return VsockStatus::NO_RESOURCES;
          return exchange->connect(cid, port, kj::mv(copy));
        }
        return VsockStatus::CONNECTION_REFUSED;
      })
      .then([context](VsockStatus status) mutable { context.getResults().setStatus(status); });
}

}  // namespace troupe::realm
