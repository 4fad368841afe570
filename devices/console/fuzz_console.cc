// Fuzzes virtio-console: the queues of three ports and of their control messages, with readers on
// the host that keep up, fall behind or stop, people who type, connect and leave, and terminals
// that change their size.
#include <kj/async.h>
#include <kj/debug.h>
#include <kj/timer.h>

#include "devices/console/control_rings.h"
#include "devices/console/fuzz_request.h"
#include "devices/console/input_queue.h"
#include "devices/console/output_log.h"
#include "devices/console/port_control.h"
#include "devices/console/receive_ring.h"
#include "devices/console/transmit_ring.h"
#include "devices/console/wire.h"
#include "tests/fuzz/session.h"

namespace troupe::console {
namespace {

using fuzz::Op;

constexpr uint16_t PORTS = 3;
constexpr size_t LOG_BYTES = 64 << 10;  // fills sooner than the real one

// Promises need a loop; nothing of it is a system call.
kj::EventLoop loop;

// One port: the host's end of it, and its two rings while there is a driver.
struct FuzzedPort {
  explicit FuzzedPort(kj::Timer& timer) : log(timer, LOG_BYTES) {}

  void take(uint64_t most) {
    KJ_IF_MAYBE (r, reader) {
      while (most > 0) {
        size_t size = kj::min(r->next().size(), most);
        if (size == 0) break;
        r->took(size);
        most -= size;
      }
    }
  }

  void readerComesOrGoes() {
    if (reader == nullptr) {
      reader.emplace(log);
    } else {
      reader = nullptr;
    }
  }

  OutputLog log;
  InputQueue input;
  kj::Maybe<OutputLog::Reader> reader;
  kj::Maybe<ReceiveRing> receive;
  kj::Maybe<TransmitRing> transmit;
};

kj::Array<PortTraits> traits() {
  auto all = kj::heapArrayBuilder<PortTraits>(PORTS);
  all.add(PortTraits{PortKind::CONSOLE, kj::String(), 80, 25, true});
  all.add(PortTraits{PortKind::SERIAL, kj::str("org.example.agent"), 0, 0, false});
  all.add(PortTraits{PortKind::CONSOLE, kj::str("second"), 0, 0, true});
  return all.finish();
}

class FuzzedConsole final: public fuzz::FuzzedDevice {
 public:
  FuzzedConsole() {
    for (uint16_t i = 0; i < PORTS; ++i)
      ports.push_back(kj::heap<FuzzedPort>(timer));
  }

  std::vector<uint16_t> queueSizes() override { return std::vector<uint16_t>(2 + 2 * PORTS, 64); }
  uint64_t features() override {
    return F_SIZE | F_MULTIPORT | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;
  }

  void start(uint64_t features, const std::vector<virtio::Virtqueue*>& rings) override {
    active = rings;
    auto& now = control.emplace(traits());
    bool many = features & F_MULTIPORT;
    if (!many) now.guest(0).set(true);
    for (uint16_t i = 0; i < (many ? PORTS : 1); ++i) {
      auto& port = *ports[i];
      auto receive = rings[receiveQueueOf(i)], transmit = rings[transmitQueueOf(i)];
      if (receive != nullptr) port.receive.emplace(*receive, port.input);
      if (transmit != nullptr) port.transmit.emplace(*transmit, port.log);
    }
    if (!many) return;
    auto saying = rings[CONTROL_RECEIVE_QUEUE], hearing = rings[CONTROL_TRANSMIT_QUEUE];
    if (saying != nullptr) controlReceive.emplace(*saying, now);
    if (hearing != nullptr) controlTransmit.emplace(*hearing, now);
  }

  void stop() override {
    for (auto& port : ports) {
      port->receive = nullptr;
      port->transmit = nullptr;
    }
    controlReceive = nullptr;
    controlTransmit = nullptr;
    control = nullptr;
  }

  void kick(uint16_t queue) override {
    virtio::Virtqueue& ring = *active[queue];
    ring.disableNotifications();
    serve(queue);
    ring.publish();
    ring.enableNotifications();
  }

  void request(const Op& op, fuzz::RequestTemplate& request) override {
    chooseRequest(op, request);
  }

  void event(const Op& op) override {
    uint16_t index = op.b % PORTS;
    FuzzedPort& port = *ports[index];
    switch (op.a % 6) {
      case 0: {  // typed
        kj::byte text[256];
        memset(text, op.d, sizeof(text));
        port.input.append(kj::arrayPtr(text, op.c % sizeof(text)));
        break;
      }
      case 1:  // the reader takes some
        port.take(op.c);
        break;
      case 2:  // time passes
        now += op.c % 500 * kj::MILLISECONDS;
        timer.advanceTo(now);
        waitScope.poll();
        break;
      case 3:
        port.readerComesOrGoes();
        break;
      case 4:  // somebody connects, or the last one leaves
        KJ_IF_MAYBE (c, control) c->hostChanged(index, op.c & 1);
        break;
      default:
        KJ_IF_MAYBE (c, control) c->resize(index, op.c, op.c >> 16);
        break;
    }
  }

  void settle() override {
    for (auto& port : ports)
      port->take(UINT64_MAX);
    now += 2 * OutputLog::PATIENCE;
    timer.advanceTo(now);
    waitScope.poll();
  }
  // A request may be long, and one turn copies 256 KiB.
  int turnsToSettle() override { return 2000; }
  // Those of ports and messages that a driver without MULTIPORT does not have are never looked at.
  bool keepsBuffers(uint16_t queue) override {
    return queue % 2 == RECEIVE_QUEUE || !isServed(queue);
  }
  // Waking who waits for bytes or room: a few promises.
  size_t allocationBound() override { return 64 << 10; }

 private:
  static uint16_t portOf(uint16_t queue) { return queue <= TRANSMIT_QUEUE ? 0 : queue / 2 - 1; }

  bool isServed(uint16_t queue) {
    if (queue == CONTROL_RECEIVE_QUEUE) return controlReceive != nullptr;
    if (queue == CONTROL_TRANSMIT_QUEUE) return controlTransmit != nullptr;
    auto& port = *ports[portOf(queue)];
    return queue % 2 == RECEIVE_QUEUE ? port.receive != nullptr : port.transmit != nullptr;
  }

  // The harness knows by its address which chain a read belongs to, so of two that share memory
  // only one may be half copied at a time.
  bool anotherIsTransmitting(uint16_t queue) {
    for (uint16_t i = 0; i < PORTS; ++i) {
      uint16_t other = transmitQueueOf(i);
      if (other != queue && active[other] != nullptr && active[other]->inFlight() > 0) return true;
    }
    return false;
  }

  void serve(uint16_t queue) {
    if (!isServed(queue)) return;
    if (queue == CONTROL_RECEIVE_QUEUE) {
      KJ_ASSERT_NONNULL(controlReceive).serve();
    } else if (queue == CONTROL_TRANSMIT_QUEUE) {
      KJ_ASSERT_NONNULL(controlTransmit).serve();
    } else if (queue % 2 == TRANSMIT_QUEUE) {
      if (!anotherIsTransmitting(queue)) KJ_ASSERT_NONNULL(ports[portOf(queue)]->transmit).serve();
    } else if (KJ_ASSERT_NONNULL(control).guest(portOf(queue)).isOpen()) {
      KJ_ASSERT_NONNULL(ports[portOf(queue)]->receive).serve();
    }
  }

  kj::WaitScope waitScope{loop};
  kj::TimePoint now = kj::origin<kj::TimePoint>();
  kj::TimerImpl timer{now};
  std::vector<kj::Own<FuzzedPort>> ports;
  std::vector<virtio::Virtqueue*> active;
  kj::Maybe<PortControl> control;
  kj::Maybe<ControlReceiveRing> controlReceive;
  kj::Maybe<ControlTransmitRing> controlTransmit;
};

}  // namespace
}  // namespace troupe::console

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return troupe::fuzz::runOnce<troupe::console::FuzzedConsole>(data, size);
}
