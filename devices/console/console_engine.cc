#include "devices/console/console_engine.h"

#include <endian.h>
#include <kj/debug.h>
#include <unistd.h>

#include <cstring>

#include "devices/console/complaint.h"
#include "devices/console/control_queues.h"
#include "devices/console/wire.h"
#include "devices/virtio/wire.h"

namespace troupe::console {

namespace {

// Linux fills the receive queue with one page for each of its entries.
constexpr uint16_t QUEUE_SIZE = 64;

// Serves a queue until the driver has broken it.
kj::Promise<void> untilBroken(kj::Promise<void> running, virtio::DriverLink& link) {
  return running.then([&link]() { link.needsReset(); }).eagerlyEvaluate([](kj::Exception&& e) {
    // No guest can cause it, so nothing is known of what comes next: the broker sees the end.
    complain(kj::str("TRP-con-003: serving a console queue failed: ", e.getDescription()));
    _exit(1);
  });
}

kj::Array<PortTraits> traitsOf(kj::ArrayPtr<const Port> ports) {
  return KJ_MAP(port, ports) {
    return PortTraits{port.kind, kj::str(port.name), port.columns, port.rows,
                      port.line.host.isOpen()};
  };
}

constexpr uint64_t WRITTEN = 1 << 8;  // beside the byte of an emergency write

// In the place of what its process is told at its start.
constexpr uint64_t SIZE_KNOWN = 1ull << 32;

void keepSize(Port& port) {
  port.line.kept.size = SIZE_KNOWN | uint64_t(port.columns) << 16 | port.rows;
}

void takeKeptSize(Port& port) {
  uint64_t kept = port.line.kept.size;
  if (!(kept & SIZE_KNOWN)) return;
  port.columns = uint16_t(kept >> 16);
  port.rows = uint16_t(kept);
}

kj::Array<uint64_t*> keptControl(kj::ArrayPtr<const Port> ports) {
  return KJ_MAP(port, ports) {
    return &port.line.kept.control;
  };
}

}  // namespace

// A driver's queues, and the conversation with it if it has asked for one.
class ConsoleEngine::Active {
 public:
  Active(ConsoleEngine& engine, Driver driver, uint64_t features,
         kj::Array<virtio::ActiveQueue> activeQueues, virtio::DriverLink& link)
      : engine(engine),
        link(link),
        driver(driver),
        features(features),
        control(traitsOf(engine.ports), keptControl(engine.ports)),
        queues(kj::heapArray<PortQueues>(engine.ports.size())) {
    for (auto& queue : activeQueues)
      serve(kj::mv(queue));
    for (auto& port : engine.ports)
      port.line.guest.set(true);
    if (!(features & F_MULTIPORT)) {
      // There is nobody to say that it is open.
      control.guest(0).set(true);
      return;
    }
    auto watched = kj::heapArrayBuilder<kj::Promise<void>>(engine.ports.size());
    for (uint16_t i = 0; i < engine.ports.size(); ++i)
      watched.add(watchHost(i).eagerlyEvaluate(nullptr));
    hosts = watched.finish();
  }

  void resized(uint16_t index) {
    auto& port = engine.ports[index];
    if (features & F_MULTIPORT) {
      control.resize(index, port.columns, port.rows);
      control.keep();
    }
    if (index == 0) tellSize();
  }

  // Port 0's, in the configuration space, if the driver looks there.
  void tellSize() {
    auto& port = engine.ports[0];
    if (!(features & F_SIZE)) return;
    if (port.columns == engine.toldColumns && port.rows == engine.toldRows) return;
    uint16_t size[] = {htole16(port.columns), htole16(port.rows)};
    static_assert(sizeof(size) == SIZE_LENGTH, "columns and rows stand side by side");
    link.configChanged(SIZE_OFFSET, kj::arrayPtr(size, 2).asBytes());
    engine.toldColumns = port.columns;
    engine.toldRows = port.rows;
  }

  // The guest's last line may still be in a ring.
  void takeLastOutput() {
    for (auto& port : queues) {
      KJ_IF_MAYBE (transmit, port.transmit) {
        transmit->serveOnce();
      }
    }
  }

 private:
  void serve(virtio::ActiveQueue queue) {
    bool isPortZeros = queue.index <= TRANSMIT_QUEUE;
    // Without MULTIPORT there are no others (§5.3.2), whatever the driver has enabled.
    if (!isPortZeros && !(features & F_MULTIPORT)) return;
    if (queue.index == CONTROL_RECEIVE_QUEUE) {
      auto& served = saying.emplace(engine.events, kj::mv(queue), control);
      controlling[0] = untilBroken(served.run(), link);
    } else if (queue.index == CONTROL_TRANSMIT_QUEUE) {
      auto& served = hearing.emplace(engine.events, kj::mv(queue), control);
      controlling[1] = untilBroken(served.run(), link);
    } else {
      servePort(isPortZeros ? 0 : queue.index / 2 - 1, kj::mv(queue));
    }
  }

  void servePort(uint16_t index, virtio::ActiveQueue queue) {
    auto& line = engine.ports[index].line;
    auto& port = queues[index];
    bool goesOn = driver == Driver::OF_A_DEAD_PROCESS;
    uint16_t known = queue.ring->publishedIndex();
    if (queue.index == transmitQueueOf(index)) {
      uint64_t logged = goesOn ? line.output.untold(known) : 0;
      auto& served = port.transmit.emplace(engine.events, kj::mv(queue), line.output, logged);
      port.transmitting = untilBroken(served.run(), link);
    } else {
      if (goesOn) line.input.goOn(known);
      auto& served =
          port.receive.emplace(engine.events, kj::mv(queue), line.input, control.guest(index));
      port.receiving = untilBroken(served.run(), link);
    }
  }

  kj::Promise<void> watchHost(uint16_t index) {
    auto& host = engine.ports[index].line.host;
    return host.whenChanged().then([this, index, &host]() {
      control.hostChanged(index, host.isOpen());
      return watchHost(index);
    });
  }

  ConsoleEngine& engine;
  virtio::DriverLink& link;
  const Driver driver;
  const uint64_t features;
  PortControl control;
  kj::Array<PortQueues> queues;
  kj::Maybe<ControlReceiveQueue> saying;
  kj::Maybe<ControlTransmitQueue> hearing;
  kj::Promise<void> controlling[2] = {nullptr, nullptr};
  kj::Array<kj::Promise<void>> hosts;
};

ConsoleEngine::ConsoleEngine(kj::UnixEventPort& events, kj::Array<Port> given)
    : events(events), ports(kj::mv(given)) {
  KJ_REQUIRE(ports.size() >= 1 && ports.size() <= MOST_PORTS, "a number of ports that cannot be",
             ports.size());
  for (auto& port : ports)
    takeKeptSize(port);
  toldColumns = ports[0].columns;
  toldRows = ports[0].rows;
}

ConsoleEngine::~ConsoleEngine() noexcept(false) {}

bool ConsoleEngine::offersPorts() const {
  auto& first = ports[0];
  return ports.size() > 1 || first.name.size() > 0 || first.kind == PortKind::SERIAL;
}

virtio::DeviceDescription ConsoleEngine::describe() {
  uint32_t portCount = ports.size();
  toldColumns = ports[0].columns;
  toldRows = ports[0].rows;
  ConsoleConfigSpace space = {htole16(toldColumns), htole16(toldRows), htole32(portCount), 0};
  virtio::DeviceDescription description;
  description.deviceType = virtio::ID_CONSOLE;
  description.features = F_SIZE | F_EMERG_WRITE | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;
  if (offersPorts()) description.features |= F_MULTIPORT;
  size_t queueCount = offersPorts() ? 2 + 2 * portCount : 2;
  description.queueSizes = kj::heapArray<uint16_t>(queueCount);
  for (auto& size : description.queueSizes)
    size = QUEUE_SIZE;
  description.config = kj::heapArray(kj::arrayPtr(&space, 1).asBytes());
  description.configWriteMask = kj::heapArray<kj::byte>(sizeof(space));
  memset(description.configWriteMask.begin(), 0, sizeof(space));
  memset(description.configWriteMask.begin() + EMERGENCY_WRITE_OFFSET, 0xff,
         sizeof(space.emergencyWrite));
  return description;
}

void ConsoleEngine::begin(Driver driver, uint64_t features, kj::Array<virtio::ActiveQueue> queues,
                          virtio::DriverLink& link) {
  KJ_REQUIRE(active == nullptr, "already active; stop() comes first");
  auto& now = *active.emplace(kj::heap<Active>(*this, driver, features, kj::mv(queues), link));
  now.tellSize();
}

void ConsoleEngine::start(const virtio::GuestMemory&, uint64_t features,
                          kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) {
  begin(Driver::NEW, features, kj::mv(queues), link);
}

void ConsoleEngine::resume(const virtio::GuestMemory&, uint64_t features,
                           kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) {
  begin(Driver::OF_A_DEAD_PROCESS, features, kj::mv(queues), link);
}

void ConsoleEngine::forget() {
  for (auto& port : ports) {
    port.line.kept.control = 0;
    port.line.input.begin();
    port.line.output.told().begin(port.line.output.end());
  }
}

kj::Promise<void> ConsoleEngine::stop() {
  // Destroying the queues' promises is all: they touch the rings in their own turns only.
  active = nullptr;
  return kj::READY_NOW;
}

kj::Promise<void> ConsoleEngine::handOver() {
  active = nullptr;
  kj::Vector<kj::Promise<void>> resting;
  for (auto& port : ports) {
    KJ_IF_MAYBE (backend, port.backend) {
      resting.add(backend->rest());
    }
  }
  return kj::joinPromises(resting.releaseAsArray());
}

kj::Promise<void> ConsoleEngine::takeOver() {
  for (auto& port : ports) {
    port.line.takeOver();
    takeKeptSize(port);
  }
  return kj::READY_NOW;
}

void ConsoleEngine::writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  // The low byte of emerg_wr is printed, whether or not the driver has got as far as a queue. What
  // drivers have written last is told to each successor first of all.
  bool covers = offset <= EMERGENCY_WRITE_OFFSET && data.size() > EMERGENCY_WRITE_OFFSET - offset;
  if (!covers) return;
  size_t at = EMERGENCY_WRITE_OFFSET - offset;
  auto& kept = ports[0].line.kept.emergency;
  uint64_t word = WRITTEN | data[at];
  bool isAgain = kept == word && isFirstWrite;
  isFirstWrite = false;
  if (isAgain) return;
  ports[0].line.output.writeAside(data.slice(at, at + 1));
  kept = word;
}

kj::Promise<void> ConsoleEngine::hostEvent(HostEvent::Reader event) {
  if (!event.isConsoleSize()) return kj::READY_NOW;
  for (uint16_t i = 0; i < ports.size(); ++i) {
    if (!ports[i].followsTerminal) continue;
    ports[i].columns = event.getConsoleSize().getColumns();
    ports[i].rows = event.getConsoleSize().getRows();
    keepSize(ports[i]);
    KJ_IF_MAYBE (now, active) {
      (*now)->resized(i);
    }
  }
  return kj::READY_NOW;
}

void ConsoleEngine::showIn(const virtio::VitalSigns& signs) {
  for (auto& port : ports) {
    KJ_IF_MAYBE (backend, port.backend) {
      backend->showIn(signs);
    }
  }
}

kj::Promise<void> ConsoleEngine::finish() {
  KJ_IF_MAYBE (now, active) {
    (*now)->takeLastOutput();
  }
  auto drained = kj::heapArrayBuilder<kj::Promise<void>>(ports.size());
  for (auto& port : ports)
    drained.add(port.line.output.drained(LAST_WORDS_WAIT));
  return kj::joinPromises(drained.finish());
}

}  // namespace troupe::console
