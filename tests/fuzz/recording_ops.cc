#include "tests/fuzz/recording_ops.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string>

#include "devices/virtio/wire.h"
#include "tests/fuzz/seed_kinds.h"

namespace troupe::fuzz {
namespace {

constexpr uint32_t CHAINS_PER_KICK = 4;
constexpr uint8_t INDIRECT = 0x10;  // of PUBLISH's a

// The buffers of a chain that is no request its driver would make.
void buffers(TakenChain::Reader chain, std::vector<Op>& ops) {
  constexpr uint8_t WRITABLE = 8;
  constexpr uint16_t RAW_LENGTH = 7;
  for (auto one : chain.getDescriptors()) {
    if (one.getFlags() & virtio::DESC_F_INDIRECT) continue;
    uint8_t flags = one.getFlags() & virtio::DESC_F_WRITE ? WRITABLE : 0;
    bool isShort = one.getLength() < 4096;
    ops.push_back(make(OpKind::BUFFER, uint8_t(Where::DATA) | flags, isShort ? 0 : RAW_LENGTH,
                       one.getLength()));
  }
}

class Inputs {
 public:
  explicit Inputs(const SeedKind& kind) : kind(kind) {}

  void see(FlightEvent::Reader event) {
    switch (event.which()) {
      case FlightEvent::BEGAN:
        driver.queues = event.getBegan().getQueueSizes().size();
        break;
      case FlightEvent::ACTIVATED:
        finish();
        driver.features = event.getActivated().getFeatures();
        driver.enabled = 0;
        for (auto queue : event.getActivated().getQueues())
          if (queue.getIndex() < 32) driver.enabled |= 1u << queue.getIndex();
        break;
      case FlightEvent::RESET:
        if (!ops.empty()) ops.push_back(make(OpKind::RESET));
        break;
      case FlightEvent::CONFIG_WRITTEN: {
        uint64_t value = 0;
        auto data = event.getConfigWritten().getData();
        memcpy(&value, data.begin(), std::min(data.size(), sizeof(value)));
        add({make(OpKind::CONFIG, 0, data.size(), event.getConfigWritten().getOffset(), value)});
        break;
      }
      case FlightEvent::TAKEN:
        chain(event.getTaken());
        break;
      case FlightEvent::CALLED: {
        std::vector<Op> done;
        kind.hostCall(event.getCalled(), done);
        if (done.empty()) break;
        done.push_back(make(OpKind::KICK, lastQueue));
        add(done);
        break;
      }
      default:
        break;
    }
  }

  std::vector<std::vector<Op>> take() {
    finish();
    return std::move(inputs);
  }

 private:
  void chain(TakenChain::Reader taken) {
    Shape shape(taken);
    uint8_t queue;
    KJ_IF_MAYBE (its, kind.queueOf(taken.getQueue(), driver)) {
      queue = *its;
    } else {
      return;
    }
    std::vector<Op> request;
    if (!taken.getRefused()) kind.request(taken, shape, queue, request);
    if (request.empty()) buffers(taken, request);
    if (request.empty()) return;
    request.push_back(make(OpKind::PUBLISH, queue | (shape.indirect ? INDIRECT : 0)));
    if (++published % CHAINS_PER_KICK == 0 || taken.getRefused())
      request.push_back(make(OpKind::KICK, queue));
    lastQueue = queue;
    add(request);
  }

  // Whole requests only; the last one of an input is a kick.
  void add(const std::vector<Op>& more) {
    if (ops.size() + more.size() >= MAX_OPS) finish();
    if (more.size() >= MAX_OPS - 1) return;
    if (ops.empty()) ops.push_back(make(OpKind::FEATURES, 0, 0, 0, driver.features));
    ops.insert(ops.end(), more.begin(), more.end());
  }

  void finish() {
    if (ops.size() > 1) {
      if (ops.size() < MAX_OPS) ops.push_back(make(OpKind::KICK, lastQueue));
      std::string bytes(reinterpret_cast<const char*>(ops.data()), ops.size() * sizeof(Op));
      if (known.insert(bytes).second) inputs.push_back(ops);
    }
    ops.clear();
    published = 0;
  }

  const SeedKind& kind;
  SeenDriver driver;
  uint8_t lastQueue = 0;
  uint32_t published = 0;
  std::vector<Op> ops;
  std::vector<std::vector<Op>> inputs;
  std::set<std::string> known;
};

}  // namespace

std::vector<std::vector<Op>> opsOf(kj::StringPtr kind, const EventList& events) {
  KJ_IF_MAYBE (known, seedKind(kind)) {
    Inputs inputs(*known);
    for (size_t i = 0; i < events.size(); i++)
      events.with(i, [&](FlightEvent::Reader event) { inputs.see(event); });
    return inputs.take();
  }
  return {};
}

}  // namespace troupe::fuzz
