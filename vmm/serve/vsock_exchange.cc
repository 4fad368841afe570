#include "vmm/serve/vsock_exchange.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "vmm/fd_handle.h"

namespace troupe::realm {

namespace {

// A listener that does not answer; a guest's driver waits no longer either.
constexpr kj::Duration PATIENCE = 10 * kj::SECONDS;

// Streams that one guest may be waiting for at a time, and that may be on their way to one.
constexpr uint32_t MOST_WAITING = 64;

// What a client hands in is anything: only a connected stream socket may come near a device.
bool isStream(int fd) {
  int value = 0;
  socklen_t size = sizeof(value);
  auto has = [&](int option, int wanted) {
    return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 && value == wanted;
  };
  sockaddr_storage peer;
  socklen_t length = sizeof(peer);
  return has(SO_TYPE, SOCK_STREAM) && has(SO_DOMAIN, AF_UNIX) &&
         getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0;
}

// A copy of the lent fd as a device wants it; null for anything but a stream.
kj::AutoCloseFd streamOf(kj::Maybe<int> lent) {
  KJ_IF_MAYBE (fd, lent) {
    if (!isStream(*fd)) return nullptr;
    kj::AutoCloseFd copy(fcntl(*fd, F_DUPFD_CLOEXEC, 3));
    if (copy != nullptr && fcntl(copy, F_SETFL, O_NONBLOCK) == 0) return copy;
  }
  return nullptr;
}

}  // namespace

namespace {

struct Count: public kj::Refcounted {
  uint32_t number = 0;
};

}  // namespace

struct VsockExchange::Guest {
  uint32_t cid;
  kj::Maybe<Acceptor::Client> device;
  kj::Own<Count> offers = kj::refcounted<Count>();  // under way
};

// What one guest's device asks.
class VsockExchange::GuestsConnector final: public Connector::Server {
 public:
  GuestsConnector(kj::Own<VsockExchange> exchange, uint32_t cid)
      : exchange(kj::mv(exchange)), cid(cid) {}

  kj::Promise<void> connect(ConnectContext context) override {
    auto params = context.getParams();
    if (params.getCid() > UINT32_MAX || asking >= MOST_WAITING) return kj::READY_NOW;
    ++asking;
    return exchange->reach(cid, params.getGuestPort(), uint32_t(params.getCid()), params.getPort())
        .then([context](kj::Maybe<kj::AutoCloseFd> found) mutable {
          KJ_IF_MAYBE (socket, found) {
            context.getResults().setSocket(kj::heap<FdHandle>(kj::mv(*socket)));
          }
        })
        .attach(kj::defer([this]() { --asking; }));
  }

  kj::Promise<void> ended(EndedContext context) override {
    for (auto stream : context.getParams().getStreams()) {
      if (stream.getPeerCid() != HOST_CID) continue;
      exchange->freePort(stream.getPeerPort(), cid, stream.getGuestPort());
    }
    return kj::READY_NOW;
  }

 private:
  kj::Own<VsockExchange> exchange;
  const uint32_t cid;
  uint32_t asking = 0;
};

class VsockExchange::Neighbours final: public VsockNeighbours {
 public:
  Neighbours(kj::Own<VsockExchange> from, uint32_t cid) : exchange(kj::mv(from)) {
    guest.cid = cid;
    exchange->guests[cid] = &guest;
  }
  ~Neighbours() noexcept(false) {
    exchange->guests.erase(guest.cid);
    exchange->freePortsOf(guest.cid);
  }
  KJ_DISALLOW_COPY(Neighbours);

  Connector::Client connector() override {
    return kj::heap<GuestsConnector>(kj::addRef(*exchange), guest.cid);
  }

  void serves(Acceptor::Client device) override {
    exchange->freePortsOf(guest.cid);
    guest.device = kj::mv(device);
  }

 private:
  kj::Own<VsockExchange> exchange;
  Guest guest;
};

kj::Own<VsockNeighbours> VsockExchange::join(uint32_t cid) {
  return kj::heap<Neighbours>(kj::addRef(*this), cid);
}

VsockStatus VsockExchange::listen(uint32_t port, HostVsockAcceptor::Client acceptor,
                                  kj::Own<Listening>& listening) {
  if (listeners.count(port) > 0 || inUse.count(port) > 0) return VsockStatus::ALREADY_BOUND;
  if (listeners.size() >= MOST_LISTENERS) return VsockStatus::NO_RESOURCES;
  listeners.emplace(port, kj::mv(acceptor));
  listening = kj::heap<Listening>(kj::addRef(*this), port);
  return VsockStatus::OK;
}

kj::Promise<VsockStatus> VsockExchange::connect(uint32_t cid, uint32_t port,
                                                kj::AutoCloseFd socket) {
  if (guests.count(cid) == 0 || !isStream(socket)) return VsockStatus::CONNECTION_REFUSED;
  uint32_t hostPort = FIRST_EPHEMERAL;
  while (inUse.count(hostPort) > 0 || listeners.count(hostPort) > 0) {
    if (++hostPort > LAST_EPHEMERAL) return VsockStatus::NO_RESOURCES;
  }
  KJ_SYSCALL(fcntl(socket, F_SETFL, O_NONBLOCK));
  inUse.emplace(hostPort, Use{cid, port});
  return offer(cid, HOST_CID, hostPort, port, kj::mv(socket))
      .then([this, hostPort, cid, port](VsockStatus status) {
        if (status != VsockStatus::OK) freePort(hostPort, cid, port);
        return status;
      })
      .attach(kj::addRef(*this));
}

kj::Promise<VsockExchange::Socket> VsockExchange::reach(uint32_t from, uint32_t fromPort,
                                                        uint32_t cid, uint32_t port) {
  return cid == HOST_CID ? reachHost(from, fromPort, port) : reachGuest(from, fromPort, cid, port);
}

kj::Promise<VsockExchange::Socket> VsockExchange::reachHost(uint32_t from, uint32_t fromPort,
                                                            uint32_t port) {
  auto listener = listeners.find(port);
  if (listener == listeners.end()) return Socket(nullptr);
  auto request = listener->second.acceptRequest();
  request.setSrcCid(from);
  request.setSrcPort(fromPort);
  request.setPort(port);
  auto late = timer.afterDelay(PATIENCE).then([]() { return Socket(nullptr); });
  return request.send()
      .then([](auto&& answer) -> kj::Promise<Socket> {
        if (answer.getStatus() != VsockStatus::OK || !answer.hasSocket()) return Socket(nullptr);
        auto handle = answer.getSocket();
        auto lent = handle.getFd();
        return lent.then([handle = kj::mv(handle)](kj::Maybe<int> fd) -> Socket {
          auto socket = streamOf(fd);
          if (socket == nullptr) return nullptr;
          return kj::mv(socket);
        });
      })
      .catch_([](kj::Exception&&) { return Socket(nullptr); })  // it has gone, or talks nonsense
      .exclusiveJoin(kj::mv(late));
}

kj::Promise<VsockExchange::Socket> VsockExchange::reachGuest(uint32_t from, uint32_t fromPort,
                                                             uint32_t cid, uint32_t port) {
  if (guests.count(cid) == 0) return Socket(nullptr);
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  kj::AutoCloseFd ours(fds[0]), theirs(fds[1]);
  return offer(cid, from, fromPort, port, kj::mv(theirs))
      .then([ours = kj::mv(ours)](VsockStatus status) mutable -> Socket {
        if (status != VsockStatus::OK) return nullptr;
        return kj::mv(ours);
      });
}

// To a guest's device, which may be anybody's by now: it may refuse, or never answer.
kj::Promise<VsockStatus> VsockExchange::offer(uint32_t cid, uint32_t peerCid, uint32_t peerPort,
                                              uint32_t port, kj::AutoCloseFd socket) {
  auto& guest = *guests[cid];
  KJ_IF_MAYBE (device, guest.device) {
    if (guest.offers->number >= MOST_WAITING) return VsockStatus::NO_RESOURCES;
    auto request = device->offerRequest();
    auto name = request.initStream();
    name.setPeerCid(peerCid);
    name.setPeerPort(peerPort);
    name.setGuestPort(port);
    request.setSocket(kj::heap<FdHandle>(kj::mv(socket)));
    ++guest.offers->number;
    auto late =
        timer.afterDelay(2 * PATIENCE).then([]() { return VsockStatus::CONNECTION_REFUSED; });
    return request.send()
        .then([](auto&& answer) {
          switch (answer.getAnswer()) {
            case OfferAnswer::ACCEPTED:
              return VsockStatus::OK;
            case OfferAnswer::EXISTS:
              return VsockStatus::ALREADY_BOUND;
            default:
              return VsockStatus::CONNECTION_REFUSED;
          }
        })
        .catch_([](kj::Exception&&) { return VsockStatus::CONNECTION_REFUSED; })
        .exclusiveJoin(kj::mv(late))
        .attach(kj::defer([count = kj::addRef(*guest.offers)]() mutable { --count->number; }));
  }
  return VsockStatus::CONNECTION_REFUSED;
}

// If it is still that stream's: a device can say of any stream that it has ended.
void VsockExchange::freePort(uint32_t hostPort, uint32_t cid, uint32_t port) {
  auto use = inUse.find(hostPort);
  if (use == inUse.end() || use->second.cid != cid || use->second.port != port) return;
  inUse.erase(use);
}

void VsockExchange::freePortsOf(uint32_t cid) {
  for (auto use = inUse.begin(); use != inUse.end();) {
    use = use->second.cid == cid ? inUse.erase(use) : std::next(use);
  }
}

}  // namespace troupe::realm
