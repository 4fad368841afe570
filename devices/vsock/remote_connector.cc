#include "devices/vsock/remote_connector.h"

#include <fcntl.h>

namespace troupe::vsock {

namespace {

constexpr kj::uint FDS_PER_MESSAGE = 1;

Connector::Client bootstrap(capnp::RpcSystem<capnp::rpc::twoparty::VatId>& rpc) {
  capnp::MallocMessageBuilder message(8);
  auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
  vatId.setSide(capnp::rpc::twoparty::Side::SERVER);
  return rpc.bootstrap(vatId).castAs<Connector>();
}

kj::Promise<kj::AutoCloseFd> socketOf(Connector::ConnectResults::Reader results) {
  if (!results.hasSocket()) return kj::AutoCloseFd(nullptr);
  auto handle = results.getSocket();
  auto fd = handle.getFd();
  return fd.then([](kj::Maybe<int> lent) { return duplicate(lent); }).attach(kj::mv(handle));
}

}  // namespace

kj::AutoCloseFd duplicate(kj::Maybe<int> lent) {
  KJ_IF_MAYBE (fd, lent) {
    return kj::AutoCloseFd(fcntl(*fd, F_DUPFD_CLOEXEC, 0));
  }
  return nullptr;
}

ConnectorPipe::ConnectorPipe(kj::AsyncIoContext& io, int fd, Acceptor::Client acceptor)
    : stream(
          io.lowLevelProvider->wrapUnixSocketFd(fd, kj::LowLevelAsyncIoProvider::ALREADY_CLOEXEC)),
      network(*stream, FDS_PER_MESSAGE, capnp::rpc::twoparty::Side::CLIENT),
      rpc(capnp::makeRpcServer(network, kj::mv(acceptor))),
      client(bootstrap(rpc)) {}

Question::Question(Connector::Client connector, uint64_t cid, uint32_t port, uint32_t guestPort,
                   kj::Function<void()> answered)
    : asking(nullptr) {
  auto request = connector.connectRequest();
  request.setCid(cid);
  request.setPort(port);
  request.setGuestPort(guestPort);
  asking = request.send()
               .then([](capnp::Response<Connector::ConnectResults>&& response) {
                 return socketOf(response);
               })
               // A connector that fails, or is gone, has found nobody.
               .catch_([](kj::Exception&&) { return kj::AutoCloseFd(nullptr); })
               .then([this, answered = kj::mv(answered)](kj::AutoCloseFd&& found) mutable {
                 socket = kj::mv(found);
                 isOver = true;
                 answered();
               })
               .eagerlyEvaluate(nullptr);
}

}  // namespace troupe::vsock
