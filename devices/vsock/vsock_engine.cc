#include "devices/vsock/vsock_engine.h"

#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>

#include "devices/vsock/flight_socket.h"
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
// ever destroyed by its own news, and a recording of what happens elsewhere, of turns and of calls
// in them is all there is to know.
struct VsockEngine::Active final: private HostSide {
  class Attempt;
  class KnownAttempt;
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
      : engine(engine),
        events(engine.events),
        connector(engine.connector),
        flight(
            engine.flight.map([](virtio::HostInputs& one) -> virtio::HostInputs& { return one; })),
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
    if (!beginTurn()) return rest();
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
    if (board.needsTicks() && !tickSet && !isReplayed()) setTick();
    return rest();
  }

  // Until somebody asks for a turn.
  kj::Promise<void> rest() {
    awake = false;
    auto paf = kj::newPromiseAndFulfiller<void>();
    awakener = kj::mv(paf.fulfiller);
    return paf.promise.then([this] { return run(); });
  }

  bool isReplayed() const {
    KJ_IF_MAYBE (inputs, flight) {
      return inputs->isReplaying();
    }
    return false;
  }

  void note(HostCall::Kind kind, uint64_t offset = 0, int64_t result = 0) {
    KJ_IF_MAYBE (inputs, flight) {
      inputs->called({kind, offset}, result);
    }
  }

  // In a replay: does what happened elsewhere, and says whether a turn came then.
  bool beginTurn() {
    if (!isReplayed()) {
      note(HostCall::Kind::TURN);
      return true;
    }
    auto& inputs = KJ_ASSERT_NONNULL(flight);
    for (;;) {
      KJ_IF_MAYBE (input, inputs.arrived()) {
        if (!repeat(*input)) return false;
        inputs.called({input->kind, input->offset}, input->result);
        if (input->kind == HostCall::Kind::TURN) return true;
      } else {
        return false;
      }
    }
  }

  bool repeat(const virtio::HostAnswer& input) {
    switch (input.kind) {
      case HostCall::Kind::TURN:
        return true;
      case HostCall::Kind::TICK:
        board.tick();
        return true;
      case HostCall::Kind::NEWS:
      case HostCall::Kind::CONNECTED:
        KJ_IF_MAYBE (stream, board.find(input.offset)) {
          return repeatFor(*stream, input);
        }
        return false;
      default:
        return false;
    }
  }

  bool repeatFor(Stream& stream, const virtio::HostAnswer& input);

  kj::Own<HostSocket> socketOf(kj::AutoCloseFd fd, kj::Maybe<LoopSocket&>& loopSocket) {
    auto socket = kj::heap<LoopSocket>(events, kj::mv(fd));
    loopSocket = *socket;
    KJ_IF_MAYBE (inputs, flight) {
      return kj::heap<FlightSocket>(*inputs, kj::mv(socket));
    }
    return kj::mv(socket);
  }

  // A socket of the host's, or of the recording's.
  void belongs(HostSocket& socket, Stream& stream, kj::Maybe<LoopSocket&> loopSocket) {
    if (flight != nullptr) static_cast<FlightSocket&>(socket).belongsTo(stream.slot);
    KJ_IF_MAYBE (inLoop, loopSocket) {
      watch(*inLoop, stream);
    }
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
      note(HostCall::Kind::TICK);
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
    if (isReplayed()) return acceptAgain();
    int left = ACCEPTED_PER_TURN;
    for (auto& door : doors) {
      while (door->mayWait && !board.full() && left > 0) {
        int fd = accept4(door->listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
          note(HostCall::Kind::ACCEPT, door->listener.guestPort.orDefault(0),
               door->listener.guestPort == nullptr ? 0 : 1);
          kj::Maybe<LoopSocket&> inLoop;
          auto socket = socketOf(kj::AutoCloseFd(fd), inLoop);
          admit(kj::mv(socket), door->listener.guestPort, inLoop);
          --left;
        } else if (errno != EINTR && errno != ECONNABORTED) {
          door->mayWait = false;
        }
      }
    }
  }

  void acceptAgain() {
    auto& inputs = KJ_ASSERT_NONNULL(flight);
    for (;;) {
      auto answer = inputs.answer(HostCall::Kind::ACCEPT);
      if (answer.result < 0 || board.full()) return;
      note(HostCall::Kind::ACCEPT, answer.offset, answer.result);
      kj::Maybe<uint32_t> port;
      if (answer.result > 0) port = uint32_t(answer.offset);
      admit(kj::heap<FlightSocket>(inputs, kj::Own<HostSocket>()), port, nullptr);
    }
  }

  void admit(kj::Own<HostSocket> socket, kj::Maybe<uint32_t> guestPort,
             kj::Maybe<LoopSocket&> inLoop) {
    auto& its = *socket;
    KJ_IF_MAYBE (port, guestPort) {
      belongs(its, board.forward(kj::mv(socket), *port), inLoop);
    } else {
      belongs(its, board.greet(kj::mv(socket)), inLoop);
    }
  }

  // A stream outlives its socket, and the socket its news.
  void watch(LoopSocket& socket, Stream& stream) {
    socket.onNews([this, &stream, &socket] {
      note(HostCall::Kind::NEWS, stream.slot, socket.peerGone() ? 1 : 0);
      board.ready(stream);
      wake();
    });
  }

  kj::Own<ConnectAttempt> connect(Stream& stream, uint64_t cid, uint32_t port,
                                  uint32_t guestPort) override;
  void ended(uint64_t peerCid, uint32_t peerPort, uint32_t guestPort) override {
    engine.tellEnd({peerCid, peerPort, guestPort});
  }

  // Offers the guest a stream; none of this name exists, and there is room.
  void offer(const StreamKey& key, kj::AutoCloseFd fd, kj::Own<Offer> wish) {
    auto socket = kj::heap<LoopSocket>(events, kj::mv(fd));
    auto& loopSocket = *socket;
    watch(loopSocket, board.offer(kj::mv(socket), key, kj::mv(wish)));
    wake();
  }

  VsockEngine& engine;
  kj::UnixEventPort& events;
  Connector::Client connector;
  kj::Maybe<virtio::HostInputs&> flight;
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
  Attempt(Active& active, Stream& stream, uint64_t cid, uint32_t port, uint32_t guestPort)
      : active(active), stream(stream), question(active.connector, cid, port, guestPort, [this] {
          this->active.note(HostCall::Kind::CONNECTED, this->stream.slot,
                            question.found() ? 0 : -ENOENT);
          this->active.board.ready(this->stream);
          this->active.wake();
        }) {}

  bool over() override { return question.over(); }

  kj::Own<HostSocket> take() override {
    auto fd = question.take();
    if (fd == nullptr) return {};
    kj::Maybe<LoopSocket&> inLoop;
    auto socket = active.socketOf(kj::mv(fd), inLoop);
    active.belongs(*socket, stream, inLoop);
    return socket;
  }

 private:
  Active& active;
  Stream& stream;
  Question question;
};

// One whose answer is in a recording.
class VsockEngine::Active::KnownAttempt final: public ConnectAttempt {
 public:
  KnownAttempt(Active& active, Stream& stream) : active(active), stream(stream) {}

  void answer(bool found) {
    isOver = true;
    wasFound = found;
  }

  bool over() override { return isOver; }

  kj::Own<HostSocket> take() override {
    if (!wasFound) return {};
    auto& inputs = KJ_ASSERT_NONNULL(active.flight);
    kj::Own<HostSocket> socket = kj::heap<FlightSocket>(inputs, kj::Own<HostSocket>());
    active.belongs(*socket, stream, nullptr);
    return socket;
  }

 private:
  Active& active;
  Stream& stream;
  bool isOver = false;
  bool wasFound = false;
};

// False for a stream that is not where it was then.
bool VsockEngine::Active::repeatFor(Stream& stream, const virtio::HostAnswer& input) {
  if (input.kind == HostCall::Kind::CONNECTED) {
    if (stream.attempt.get() == nullptr) return false;
    static_cast<KnownAttempt&>(*stream.attempt).answer(input.result >= 0);
  } else if (input.result > 0 && stream.socket.get() != nullptr) {
    static_cast<FlightSocket&>(*stream.socket).hangUp();
  }
  board.ready(stream);
  return true;
}

kj::Own<ConnectAttempt> VsockEngine::Active::connect(Stream& stream, uint64_t cid, uint32_t port,
                                                     uint32_t guestPort) {
  note(HostCall::Kind::CONNECT, cid << 32 | port);
  if (isReplayed()) return kj::heap<KnownAttempt>(*this, stream);
  return kj::heap<Attempt>(*this, stream, cid, port, guestPort);
}

kj::Promise<void> OfferTaker::offer(OfferContext context) {
  auto handle = context.getParams().getSocket();
  auto lent = handle.getFd();
  return lent.then([this, context, handle = kj::mv(handle)](kj::Maybe<int> fd) mutable {
    kj::Promise<OfferAnswer> answer = OfferAnswer::REFUSED;
    KJ_IF_MAYBE (engine, its) {
      answer = engine->take(context.getParams().getStream(), duplicate(fd));
    }
    handle = nullptr;  // and with it the fd as it came
    context.releaseParams();
    return answer.then(
        [context](OfferAnswer said) mutable { context.getResults().setAnswer(said); });
  });
}

namespace {

class PromisedOffer final: public Offer {
 public:
  explicit PromisedOffer(kj::Own<kj::PromiseFulfiller<OfferAnswer>> answer)
      : answer(kj::mv(answer)) {}
  ~PromisedOffer() noexcept(false) { answer->fulfill(OfferAnswer::REFUSED); }  // unless it has one
  KJ_DISALLOW_COPY(PromisedOffer);
  void accepted() override { answer->fulfill(OfferAnswer::ACCEPTED); }

 private:
  kj::Own<kj::PromiseFulfiller<OfferAnswer>> answer;
};

}  // namespace

kj::Promise<OfferAnswer> VsockEngine::take(StreamName::Reader name, kj::AutoCloseFd socket) {
  KJ_IF_MAYBE (one, active) {
    if (flight != nullptr) return OfferAnswer::REFUSED;  // a recording has no word for it
    auto& board = (*one)->board;
    StreamKey key = {name.getPeerCid(), name.getPeerPort(), name.getGuestPort()};
    if (board.taken(key)) return OfferAnswer::EXISTS;
    if (board.full() || socket == nullptr) return OfferAnswer::REFUSED;
    auto answer = kj::newPromiseAndFulfiller<OfferAnswer>();
    (*one)->offer(key, kj::mv(socket), kj::heap<PromisedOffer>(kj::mv(answer.fulfiller)));
    return kj::mv(answer.promise);
  }
  return OfferAnswer::REFUSED;
}

void VsockEngine::tellEnd(const StreamKey& key) {
  untold.add(key);
  if (isTelling) return;
  isTelling = true;
  telling = kj::evalLater([this] { return tellEnds(); }).eagerlyEvaluate(nullptr);
}

// One call at a time, so that whoever hears it can bound them.
kj::Promise<void> VsockEngine::tellEnds() {
  constexpr size_t MOST_AT_ONCE = 256;
  kj::uint count = kj::uint(kj::min(untold.size(), MOST_AT_ONCE));
  if (count == 0) {
    isTelling = false;
    return kj::READY_NOW;
  }
  auto request = connector.endedRequest();
  auto list = request.initStreams(count);
  for (kj::uint i = 0; i < count; i++) {
    auto& key = untold[untold.size() - 1 - i];
    list[i].setPeerCid(key.peerCid);
    list[i].setPeerPort(key.peerPort);
    list[i].setGuestPort(key.guestPort);
  }
  untold.resize(untold.size() - count);
  return request.send()
      .ignoreResult()
      .catch_([](kj::Exception&&) {})  // it is gone, and nobody minds
      .then([this] { return tellEnds(); });
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

void VsockEngine::recordIn(virtio::FlightLog& log) {
  flight.emplace(log, uint16_t(RECEIVE_QUEUE));
}

kj::Promise<void> VsockEngine::stop() {
  KJ_IF_MAYBE (one, active) {
    (*one)->board.closeAll();
  }
  active = nullptr;
  return kj::READY_NOW;
}

}  // namespace troupe::vsock
