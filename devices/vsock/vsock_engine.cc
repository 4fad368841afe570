#include "devices/vsock/vsock_engine.h"

#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>

#include "devices/vsock/loop_socket.h"
#include "devices/vsock/remote_connector.h"
#include "devices/vsock/switchboard.h"

namespace troupe::vsock {

namespace {

// Linux keeps 4 KiB in each buffer it offers: a MiB is on its way to the guest.
constexpr uint16_t QUEUE_SIZES[QUEUES] = {256, 256, 8};

// Clients between two looks at everything else.
constexpr int ACCEPTED_PER_TURN = 64;

[[noreturn]] void cannotFail(kj::Exception&& exception) {
  KJ_LOG(FATAL, "serving the queues failed", exception);
  std::abort();
}

}  // namespace

// All work is done in turns of run(); whatever happens elsewhere only asks for one. So nothing is
// ever destroyed by its own news.
struct VsockEngine::Active final: private HostSide {
  class Attempt;
  struct Door {
    Door(Active& active, const Listener& listener)
        : listener(listener),
          observer(active.events, listener.fd, kj::UnixEventPort::FdObserver::OBSERVE_READ),
          watching(watch(active).eagerlyEvaluate(cannotFail)) {}

    kj::Promise<void> watch(Active& active) {
      return observer.whenBecomesReadable().then([this, &active] {
        mayWait = true;
        active.wake();
        return watch(active);
      });
    }

    const Listener& listener;
    bool mayWait = true;  // a client may
    kj::UnixEventPort::FdObserver observer;
    kj::Promise<void> watching;
  };

  enum class Driver { NEW, OF_A_DEAD_PROCESS };

  Active(VsockEngine& engine, Driver driver, kj::Array<virtio::ActiveQueue> queuesParam,
         virtio::DriverLink& link)
      : events(engine.events),
        connector(engine.connector),
        queues(kj::mv(queuesParam)),
        link(link),
        kicks(watchKicks()),
        board(engine.guestCid, *this,
              {ringOf(RECEIVE_QUEUE), ringOf(TRANSMIT_QUEUE), ringOf(EVENT_QUEUE)},
              engine.nextPort),
        ticking(nullptr),
        serving(nullptr) {
    for (const Listener& listener : engine.listeners)
      doors.add(kj::heap<Door>(*this, listener));
    if (driver == Driver::OF_A_DEAD_PROCESS) board.transportReset();
    serving = run().eagerlyEvaluate(cannotFail);
  }

  virtio::Virtqueue* ringOf(uint16_t index) {
    for (auto& queue : queues)
      if (queue.index == index) return queue.ring.get();
    return nullptr;
  }

  // A kick is never read: the interest is edge-triggered, each notification is an edge of its own,
  // and the count means nothing.
  struct Kick {
    Kick(Active& active, int fd)
        : observer(active.events, fd, kj::UnixEventPort::FdObserver::OBSERVE_READ),
          watching(watch(active).eagerlyEvaluate(cannotFail)) {}
    kj::Promise<void> watch(Active& active) {
      return observer.whenBecomesReadable().then([this, &active] {
        active.wake();
        return watch(active);
      });
    }
    kj::UnixEventPort::FdObserver observer;
    kj::Promise<void> watching;
  };

  kj::Vector<kj::Own<Kick>> watchKicks() {
    kj::Vector<kj::Own<Kick>> result;
    for (auto& queue : queues)
      result.add(kj::heap<Kick>(*this, queue.kick));
    return result;
  }

  kj::Promise<void> run() {
    awake = true;
    askedAgain = false;  // all there is to see is looked at now
    accept();
    auto turn = board.serve();
    for (auto& queue : queues) {
      // The only failure is a counter that is full: then the interrupt is pending anyway.
      if (turn.interrupts[queue.index]) eventfd_write(queue.call, 1);
    }
    if (turn.broken) {
      link.needsReset();
      return kj::READY_NOW;
    }
    // A promise that is ready at once would not do: with one always ready the loop never looks at
    // its fds, and the broker's reset would lie there unread.
    if (turn.more || askedAgain || clientsMayEnter()) {
      return events.getTimer().afterDelay(0 * kj::NANOSECONDS).then([this] { return run(); });
    }
    if (board.needsTicks() && !tickSet) setTick();
    awake = false;
    auto paf = kj::newPromiseAndFulfiller<void>();
    awakener = kj::mv(paf.fulfiller);
    return paf.promise.then([this] { return run(); });
  }

  // Asks for a turn.
  void wake() {
    if (awake) {
      askedAgain = true;
      return;
    }
    awake = true;
    awakener->fulfill();
  }

  void setTick() {
    tickSet = true;
    ticking = events.getTimer().afterDelay(1 * kj::SECONDS).then([this] {
      tickSet = false;
      board.tick();
      wake();
    });
    ticking = ticking.eagerlyEvaluate(cannotFail);
  }

  bool clientsMayEnter() const {
    bool wait = false;
    for (auto& door : doors)
      wait |= door->mayWait;
    return wait && !board.full();
  }

  // Takes in clients that wait.
  void accept() {
    int left = ACCEPTED_PER_TURN;
    for (auto& door : doors) {
      while (door->mayWait && !board.full() && left > 0) {
        int fd = accept4(door->listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
          admit(door->listener, kj::AutoCloseFd(fd));
          --left;
        } else if (errno != EINTR && errno != ECONNABORTED) {
          door->mayWait = false;
        }
      }
    }
  }

  void admit(const Listener& listener, kj::AutoCloseFd fd) {
    auto socket = kj::heap<LoopSocket>(events, kj::mv(fd));
    auto& loopSocket = *socket;
    KJ_IF_MAYBE (port, listener.guestPort) {
      watch(loopSocket, board.forward(kj::mv(socket), *port));
    } else {
      watch(loopSocket, board.greet(kj::mv(socket)));
    }
  }

  // A stream outlives its socket, and the socket its news.
  void watch(LoopSocket& socket, Stream& stream) {
    socket.onNews([this, &stream] {
      board.ready(stream);
      wake();
    });
  }

  kj::Own<ConnectAttempt> connect(Stream& stream, uint64_t cid, uint32_t port) override;

  kj::UnixEventPort& events;
  Connector::Client connector;
  kj::Array<virtio::ActiveQueue> queues;
  virtio::DriverLink& link;
  bool awake = true;        // a turn is under way or about to be
  bool askedAgain = false;  // meanwhile somebody asked for another
  bool tickSet = false;
  kj::Own<kj::PromiseFulfiller<void>> awakener;
  kj::Vector<kj::Own<Kick>> kicks;
  Switchboard board;
  kj::Vector<kj::Own<Door>> doors;
  kj::Promise<void> ticking;
  kj::Promise<void> serving;
};

class VsockEngine::Active::Attempt final: public ConnectAttempt {
 public:
  Attempt(Active& active, Stream& stream, uint64_t cid, uint32_t port)
      : active(active), stream(stream), question(active.connector, cid, port, [&active, &stream] {
          active.board.ready(stream);
          active.wake();
        }) {}

  bool over() override { return question.over(); }

  kj::Own<HostSocket> take() override {
    auto fd = question.take();
    if (fd == nullptr) return {};
    auto socket = kj::heap<LoopSocket>(active.events, kj::mv(fd));
    active.watch(*socket, stream);
    return socket;
  }

 private:
  Active& active;
  Stream& stream;
  Question question;
};

kj::Own<ConnectAttempt> VsockEngine::Active::connect(Stream& stream, uint64_t cid, uint32_t port) {
  return kj::heap<Attempt>(*this, stream, cid, port);
}

VsockEngine::VsockEngine(kj::UnixEventPort& events, uint64_t guestCid,
                         kj::Array<Listener> listeners, Connector::Client connector,
                         kj::ArrayPtr<kj::byte> kept)
    : events(events),
      guestCid(guestCid),
      listeners(kj::mv(listeners)),
      connector(kj::mv(connector)),
      nextPort(kept.size() < sizeof(uint32_t) ? nextPortHere
                                              : *reinterpret_cast<uint32_t*>(kept.begin())) {}

VsockEngine::~VsockEngine() noexcept(false) {}

virtio::DeviceDescription VsockEngine::describe() {
  virtio::DeviceDescription description = {};
  description.deviceType = virtio::ID_SOCKET;
  description.features = F_STREAM | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;
  description.queueSizes = kj::heapArray<uint16_t>(kj::ArrayPtr<const uint16_t>(QUEUE_SIZES));
  VsockConfigSpace config = {guestCid};
  description.config =
      kj::heapArray<kj::byte>(reinterpret_cast<const kj::byte*>(&config), sizeof(config));
  description.configWriteMask = kj::heapArray<kj::byte>(sizeof(config));
  for (kj::byte& mask : description.configWriteMask)
    mask = 0;
  return description;
}

void VsockEngine::start(const virtio::GuestMemory&, uint64_t, kj::Array<virtio::ActiveQueue> queues,
                        virtio::DriverLink& link) {
  active = kj::heap<Active>(*this, Active::Driver::NEW, kj::mv(queues), link);
}

void VsockEngine::resume(const virtio::GuestMemory&, uint64_t,
                         kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) {
  active = kj::heap<Active>(*this, Active::Driver::OF_A_DEAD_PROCESS, kj::mv(queues), link);
}

kj::Promise<void> VsockEngine::stop() {
  active = nullptr;
  return kj::READY_NOW;
}

}  // namespace troupe::vsock
