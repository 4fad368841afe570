#include "vmm/vsock/vsock_connector.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "vmm/channels/counted_handle.h"
#include "vmm/config/vsock_plan.h"

namespace troupe {

namespace {

constexpr uint64_t HOST_CID = 2;

// A device that is well asks 32 things at a time, and drops what it got at once.
constexpr uint32_t MOST_CALLS = 64;
constexpr uint32_t MOST_HELD = 128;

// Somebody who listens and whose backlog is full is tried again, ever more slowly: the kernel tells
// nobody when there is room.
constexpr kj::Duration FIRST_WAIT = 1 * kj::MILLISECONDS;
constexpr kj::Duration LONGEST_WAIT = 64 * kj::MILLISECONDS;
constexpr kj::Duration PATIENCE = 5 * kj::SECONDS;

capnp::ReaderOptions boundedReading() {
  capnp::ReaderOptions options;
  options.traversalLimitInWords = 1024;  // its calls are two numbers
  options.nestingLimit = 16;
  return options;
}

// A connected socket, -EAGAIN where the backlog is full, or another -errno.
int tryConnect(kj::StringPtr path, kj::AutoCloseFd& socketFd) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return -ENAMETOOLONG;
  memcpy(address.sun_path, path.begin(), path.size());
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  kj::AutoCloseFd made(fd);
  if (connect(made, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) return -errno;
  socketFd = kj::mv(made);
  return 0;
}

class HostConnector final: public Connector::Server {
 public:
  HostConnector(kj::Timer& timer, kj::Maybe<kj::StringPtr> socket) : timer(timer) {
    KJ_IF_MAYBE (path, socket) {
      base = kj::heapString(*path);
    }
  }

  kj::Promise<void> connect(ConnectContext context) override {
    auto params = context.getParams();
    // Streams to other guests are for whoever knows them.
    if (params.getCid() != HOST_CID) return kj::READY_NOW;
    KJ_IF_MAYBE (path, base) {
      return connectTo(context, hostPortPath(*path, params.getPort()), FIRST_WAIT,
                       timer.now() + PATIENCE);
    }
    return kj::READY_NOW;
  }

  // Nothing is offered to a guest here: its clients connect to sockets of the device itself.
  kj::Promise<void> ended(EndedContext) override { return kj::READY_NOW; }

 private:
  kj::Promise<void> connectTo(ConnectContext context, kj::String path, kj::Duration wait,
                              kj::TimePoint end) {
    kj::AutoCloseFd fd;
    int result = count->number < MOST_HELD ? tryConnect(path, fd) : -EAGAIN;
    if (result == 0) {
      context.getResults().setSocket(kj::heap<CountedHandle>(kj::mv(fd), kj::addRef(*count)));
      return kj::READY_NOW;
    }
    if (result != -EAGAIN || timer.now() >= end) return kj::READY_NOW;
    return timer.afterDelay(wait).then([this, context, path = kj::mv(path), wait, end]() mutable {
      return connectTo(context, kj::mv(path), kj::min(2 * wait, LONGEST_WAIT), end);
    });
  }

  kj::Timer& timer;
  kj::Maybe<kj::String> base;
  kj::Own<Count> count = kj::refcounted<Count>();
};

}  // namespace

kj::Own<Connector::Server> makeHostConnector(kj::Timer& timer, kj::Maybe<kj::StringPtr> socket) {
  return kj::heap<HostConnector>(timer, socket);
}

VsockConnector::VsockConnector(kj::AsyncIoContext& io, kj::AutoCloseFd pipe,
                               kj::Maybe<kj::StringPtr> socket)
    : VsockConnector(io, kj::mv(pipe), makeHostConnector(io.provider->getTimer(), socket)) {}

VsockConnector::VsockConnector(kj::AsyncIoContext& io, kj::AutoCloseFd pipe,
                               Connector::Client connector)
    : stream(io.lowLevelProvider->wrapUnixSocketFd(kj::mv(pipe),
                                                   kj::LowLevelAsyncIoProvider::ALREADY_NONBLOCK)),
      messages(*stream, MOST_CALLS),
      network(messages, /*maxFdsPerMessage=*/1, capnp::rpc::twoparty::Side::SERVER,
              boundedReading()),
      rpc(capnp::makeRpcServer(network, kj::mv(connector))) {
  messages.watch(network);
  rpc.setFlowLimit(4 * 1024);  // what it may have asked and not yet been told, in words
}

Acceptor::Client VsockConnector::device() {
  capnp::MallocMessageBuilder message(8);
  auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
  vatId.setSide(capnp::rpc::twoparty::Side::CLIENT);
  return rpc.bootstrap(vatId).castAs<Acceptor>();
}

}  // namespace troupe
