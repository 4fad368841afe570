#include "vmm/serve/vsock_endpoint_actor.h"

#include <fcntl.h>

namespace troupe::realm {

VsockEndpointActor::VsockEndpointActor(kj::Own<VsockExchange> exchange, kj::Own<Session> session)
    : exchange(kj::mv(exchange)), session(kj::mv(session)) {}

kj::Promise<void> VsockEndpointActor::listen(ListenContext context) {
  auto params = context.getParams();
  auto status = VsockStatus::NO_RESOURCES;
  if (session->hasRoom()) {
    kj::Own<VsockExchange::Listening> one;
    status = exchange->listen(params.getPort(), params.getAcceptor(), session->asker(), one);
    if (status == VsockStatus::OK) listeners.add(Listener{session->reserve(), kj::mv(one)});
  }
  context.getResults().setStatus(status);
  return kj::READY_NOW;
}

kj::Promise<void> VsockEndpointActor::connect(ConnectContext context) {
  auto handle = context.getParams().getSocket();
  auto lent = handle.getFd();
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
