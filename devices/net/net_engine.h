#pragma once

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/common.h>
#include <kj/function.h>
#include <kj/io.h>

#include <cstdint>

#include "devices/net/backend.h"
#include "devices/net/capture.h"
#include "devices/net/control_server.h"
#include "devices/net/flight_backend.h"
#include "devices/net/kept_state.h"
#include "devices/net/net_queue.h"
#include "devices/net/pair_rules.h"
#include "devices/net/tap_queues.h"
#include "devices/virtio/device_engine.h"

namespace troupe::net {

constexpr uint16_t MAX_PAIRS = 15;  // with the control queue 31 queues: DeviceInfo.queueSizes
constexpr uint16_t QUEUE_SIZE = 1024;
constexpr uint16_t CONTROL_QUEUE_SIZE = 64;

struct NetOptions {
  MacAddress mac;
  uint16_t mtu = 0;  // 0: the driver is told none
  Offloads offloads;
  uint32_t spinMicros = 50;
  bool spoofFilter = false;
  bool linkUp = true;
  // See TokenBucket; 0 a second is without limit.
  struct Rate {
    uint64_t bytesPerSecond = 0;
    uint64_t burstBytes = 0;
    uint64_t framesPerSecond = 0;
    uint64_t burstFrames = 0;
  };
  Rate receiveRate;
  Rate transmitRate;
};

// What an engine asks of the process it is in.
class NetProcess {
 public:
  // Keeps a new fd where the process wants it.
  virtual kj::AutoCloseFd keep(kj::StringPtr name, uint32_t index, kj::AutoCloseFd fd) = 0;
  // Narrows the calling thread, a queue pair's, to what it needs from here on. From any thread.
  virtual void confineThread() = 0;
};

// A virtio network device (§5.1): a thread per queue pair, and on the main loop the control queue
// and what starts and stops the threads.
class NetEngine final: public virtio::DeviceEngine, private ControlTarget {
 public:
  // The host's side of it, all borrowed: one backend for each pair; the tap they are queues of, and
  // a capture, if there are such. `process` must outlive this constructor. Throws (TRP-net-…).
  struct Host {
    kj::Array<Backend*> backends;
    TapQueues* tap = nullptr;
    Capture* capture = nullptr;
    kj::Array<FlightBackend*> recorded = nullptr;  // the backends, if the device is recorded
    bool isTap = false;                            // in a replay too, which has none
  };
  // `kept`: memory for a KeptState, which outlives the engine, or none.
  NetEngine(kj::UnixEventPort& port, Host host, const NetOptions& options, NetProcess& process,
            kj::ArrayPtr<kj::byte> kept = nullptr);
  ~NetEngine() noexcept(false);

  virtio::DeviceDescription describe() override;
  void start(const virtio::GuestMemory& memory, uint64_t features,
             kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  void resume(const virtio::GuestMemory& memory, uint64_t features,
              kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  void forget() override;
  kj::Promise<void> stop() override;
  kj::Promise<void> handOver() override;
  kj::Promise<void> takeOver() override;
  // The link goes up or down; the driver is to announce itself.
  kj::Promise<void> hostEvent(HostEvent::Reader event) override;
  void recordIn(virtio::FlightLog& log) override;
  void showIn(const virtio::VitalSigns& signs) override;

 private:
  // From start() until every queue is at rest.
  struct Active {
    Active(virtio::DriverLink& link, uint64_t features, const MacAddress& mac,
           const Control::Limits& limits, SharedRules::Keeps keeps)
        : link(link), features(features), control(mac, limits), rules(control.rules, keeps) {}
    virtio::DriverLink& link;
    const uint64_t features;
    Control control;
    SharedRules rules;
    kj::Maybe<virtio::ActiveQueue> rings[2 * MAX_PAIRS];  // by queue index
    kj::Maybe<kj::Own<ControlServer>> server;
  };
  struct Pair {
    kj::AutoCloseFd wake;
    kj::Own<NetQueue> queue;  // above its fd: ends first
  };

  enum class Driver { NEW, OF_A_DEAD_PROCESS };

  void begin(Driver driver, uint64_t features, kj::Array<virtio::ActiveQueue> queues,
             virtio::DriverLink& link);
  kj::Promise<bool> obey(const Control& control, Control::Command command) override;
  kj::Promise<bool> carryOut(const Control& control, Control::Command command);
  kj::Promise<bool> usePairs(uint16_t count);
  bool recall();
  void note();
  bool startPairs(uint16_t from, uint16_t to);
  bool tapDoes(uint64_t what, kj::FunctionParam<bool()> ask);
  bool attach(uint16_t pair);
  bool isReplayed();
  void startPair(uint16_t index);
  kj::Promise<void> rested(uint16_t from);
  void tellRules();
  uint16_t status() const;
  void tellStatus();
  void tellMac(const MacAddress& mac);
  void tell(uint32_t offset, kj::ArrayPtr<const kj::byte> bytes);
  kj::Promise<void> watch();
  void lookAtPairs();

  kj::UnixEventPort& port;
  Host host;
  const NetOptions options;
  virtio::RateLimit receiveLimit;
  virtio::RateLimit transmitLimit;
  const NetSettings settings;
  kj::AutoCloseFd events;
  kj::Maybe<virtio::HostInputs> tapFlight;  // where the tap's answers are recorded, or replayed

  kj::Maybe<KeptState> kept;    // for a successor of this process
  bool linkUp;                  // as the user has it
  bool announce = false;        // the driver is to, and has not said that it did
  virtio::NetConfigSpace told;  // what the broker has
  kj::Maybe<kj::Own<Active>> active;
  uint64_t activations = 0;
  // Somebody waits until the pairs from `from` on are at rest.
  struct Waiting {
    uint16_t from;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  };
  kj::Vector<Waiting> waiting;
  kj::Array<Pair> pairs;
  kj::UnixEventPort::FdObserver observer;
  kj::Promise<void> watching;
};

}  // namespace troupe::net
