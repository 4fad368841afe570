#include "vmm/serve/vsock_exchange.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "vmm/channels/counted_handle.h"

namespace troupe::realm {

namespace {

// A listener that does not answer; a guest's driver waits no longer either.
constexpr kj::Duration PATIENCE = 10 * kj::SECONDS;

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

// A process of a guest's device.
struct VsockExchange::Guest {
  struct Device {
    Acceptor::Client acceptor;
    kj::Own<PatientAsker> asker;
  };
  uint32_t cid;
  kj::Maybe<Device> device;
  kj::Own<Count> held = kj::refcounted<Count>();
};

// What one guest's device asks.
class VsockExchange::GuestsConnector final: public Connector::Server {
 public:
  GuestsConnector(kj::Own<VsockExchange> exchange, uint32_t cid, kj::Own<Count> held)
      : exchange(kj::mv(exchange)), cid(cid), held(kj::mv(held)) {}

  kj::Promise<void> connect(ConnectContext context) override {
    auto params = context.getParams();
    if (params.getCid() > UINT32_MAX || asking >= MOST_WAITING) return kj::READY_NOW;
    if (held->number >= MOST_HELD) return kj::READY_NOW;
    ++asking;
    return exchange->reach(cid, params.getGuestPort(), uint32_t(params.getCid()), params.getPort())
        .then([this, context](kj::Maybe<kj::AutoCloseFd> found) mutable {
          KJ_IF_MAYBE (socket, found) {
            context.getResults().setSocket(
                kj::heap<CountedHandle>(kj::mv(*socket), kj::addRef(*held)));
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
  kj::Own<Count> held;
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
    return kj::heap<GuestsConnector>(kj::addRef(*exchange), guest.cid, kj::addRef(*guest.held));
  }

  void serves(Acceptor::Client device) override {
    exchange->freePortsOf(guest.cid);
    guest.device =
        Guest::Device{kj::mv(device), kj::refcounted<PatientAsker>(exchange->timer, MOST_WAITING)};
  }

 private:
  kj::Own<VsockExchange> exchange;
  Guest guest;
};

kj::Own<VsockNeighbours> VsockExchange::join(uint32_t cid) {
  return kj::heap<Neighbours>(kj::addRef(*this), cid);
}

VsockStatus VsockExchange::listen(uint32_t port, HostVsockAcceptor::Client acceptor,
                                  kj::Own<PatientAsker> asker, kj::Own<Listening>& listening) {
  if (listeners.count(port) > 0 || inUse.count(port) > 0) return VsockStatus::ALREADY_BOUND;
  if (listeners.size() >= MOST_LISTENERS) return VsockStatus::NO_RESOURCES;
  listeners.emplace(port, Listener(kj::mv(acceptor), kj::mv(asker)));
  listening = kj::heap<Listening>(kj::addRef(*this), port);
  return VsockStatus::OK;
}

// Above LAST_EPHEMERAL when there is none. Both maps are in order, so it goes through them once.
uint32_t VsockExchange::lowestFreePort() const {
  uint32_t port = FIRST_EPHEMERAL;
  auto used = inUse.lower_bound(port);
  auto listened = listeners.lower_bound(port);
  for (;; port++) {
    bool isUsed = used != inUse.end() && used->first == port;
    bool isListened = listened != listeners.end() && listened->first == port;
    if (!isUsed && !isListened) return port;
    if (isUsed) ++used;
    if (isListened) ++listened;
  }
}

kj::Promise<VsockStatus> VsockExchange::connect(uint32_t cid, uint32_t port,
                                                kj::AutoCloseFd socket) {
  if (guests.count(cid) == 0 || !isStream(socket)) return VsockStatus::CONNECTION_REFUSED;
  uint32_t hostPort = lowestFreePort();
  if (hostPort > LAST_EPHEMERAL) return VsockStatus::NO_RESOURCES;
  KJ_SYSCALL(fcntl(socket, F_SETFL, O_NONBLOCK));
  inUse.emplace(hostPort, Use{cid, port});
  auto answered = offer(cid, HOST_CID, hostPort, port, kj::mv(socket))
                      .then([this, hostPort, cid, port](VsockStatus status) {
                        if (status != VsockStatus::OK) freePort(hostPort, cid, port);
                        return status;
                      })
                      .attach(kj::addRef(*this))
                      .fork();
  answered.addBranch().ignoreResult().detach([](kj::Exception&&) {});
  return answered.addBranch();
}

kj::Promise<VsockExchange::Socket> VsockExchange::reach(uint32_t from, uint32_t fromPort,
                                                        uint32_t cid, uint32_t port) {
  return cid == HOST_CID ? reachHost(from, fromPort, port) : reachGuest(from, fromPort, cid, port);
}

kj::Promise<VsockExchange::Socket> VsockExchange::reachHost(uint32_t from, uint32_t fromPort,
                                                            uint32_t port) {
  auto found = listeners.find(port);
  if (found == listeners.end() || !found->second.asker->hasRoom()) return Socket(nullptr);
  auto& listener = found->second;
  auto request = listener.acceptor.acceptRequest();
  request.setSrcCid(from);
  request.setSrcPort(fromPort);
  request.setPort(port);
  auto answer = request.send().then([](auto&& answer) -> kj::Promise<kj::AutoCloseFd> {
    if (answer.getStatus() != VsockStatus::OK || !answer.hasSocket()) return kj::AutoCloseFd();
    auto handle = answer.getSocket();
    auto lent = handle.getFd();
    return lent.then([handle = kj::mv(handle)](kj::Maybe<int> fd) { return streamOf(fd); });
  });
  return listener.asker->ask(kj::mv(answer), PATIENCE).then([](Socket&& found) -> Socket {
    KJ_IF_MAYBE (socket, found) {
      if (*socket != nullptr) return kj::mv(*socket);
    }
    return nullptr;
  });
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
    if (!device->asker->hasRoom() || guest.held->number >= MOST_HELD) {
      return VsockStatus::NO_RESOURCES;
    }
    auto request = device->acceptor.offerRequest();
    auto name = request.initStream();
    name.setPeerCid(peerCid);
    name.setPeerPort(peerPort);
    name.setGuestPort(port);
    request.setSocket(kj::heap<CountedHandle>(kj::mv(socket), kj::addRef(*guest.held)));
    auto answer = request.send().then([](auto&& answer) {
      switch (answer.getAnswer()) {
        case OfferAnswer::ACCEPTED:
          return VsockStatus::OK;
        case OfferAnswer::EXISTS:
          return VsockStatus::ALREADY_BOUND;
        default:
          return VsockStatus::CONNECTION_REFUSED;
      }
    });
    return device->asker->ask(kj::mv(answer), 2 * PATIENCE).then([](kj::Maybe<VsockStatus> said) {
      return said.orDefault(VsockStatus::CONNECTION_REFUSED);
    });
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
