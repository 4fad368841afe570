// Fuzzes virtio-console: both queues, with readers on the host that keep up, fall behind or stop,
// and somebody who types.
#include <kj/async.h>
#include <kj/debug.h>
#include <kj/timer.h>

#include "devices/console/fuzz_request.h"
#include "devices/console/input_queue.h"
#include "devices/console/output_log.h"
#include "devices/console/receive_ring.h"
#include "devices/console/transmit_ring.h"
#include "devices/console/wire.h"
#include "tests/fuzz/session.h"

namespace troupe::console {
namespace {

using fuzz::Op;

constexpr size_t LOG_BYTES = 64 << 10;  // fills sooner than the real one

// Promises need a loop; nothing of it is a system call.
kj::EventLoop loop;

class FuzzedConsole final: public fuzz::FuzzedDevice {
 public:
  std::vector<uint16_t> queueSizes() override { return {64, 64}; }
  uint64_t features() override { return virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX; }

  void start(uint64_t, const std::vector<virtio::Virtqueue*>& rings) override {
    if (rings[RECEIVE_QUEUE] != nullptr) receive.emplace(*rings[RECEIVE_QUEUE], input);
    if (rings[TRANSMIT_QUEUE] != nullptr) transmit.emplace(*rings[TRANSMIT_QUEUE], log);
    active = rings;
  }
  void stop() override {
    receive = nullptr;
    transmit = nullptr;
  }

  void kick(uint16_t queue) override {
    virtio::Virtqueue& ring = *active[queue];
    ring.disableNotifications();
    if (queue == TRANSMIT_QUEUE) {
      KJ_ASSERT_NONNULL(transmit).serve();
    } else {
      KJ_ASSERT_NONNULL(receive).serve();
    }
    ring.publish();
    ring.enableNotifications();
  }

  void request(const Op& op, fuzz::RequestTemplate& request) override {
    chooseRequest(op, request);
  }

  void event(const Op& op) override {
    switch (op.a % 4) {
      case 0: {  // typed
        kj::byte text[256];
        memset(text, op.d, sizeof(text));
        input.append(kj::arrayPtr(text, op.c % sizeof(text)));
        break;
      }
      case 1:  // the reader takes some
        take(op.c);
        break;
      case 2:  // time passes
        now += op.c % 500 * kj::MILLISECONDS;
        timer.advanceTo(now);
        waitScope.poll();
        break;
      default:  // a reader comes or goes
        if (reader == nullptr) {
          reader.emplace(log);
        } else {
          reader = nullptr;
        }
        break;
    }
  }

  void settle() override {
    take(UINT64_MAX);
    now += 2 * OutputLog::PATIENCE;
    timer.advanceTo(now);
    waitScope.poll();
  }
  // A request may be long, and one turn copies 256 KiB.
  int turnsToSettle() override { return 2000; }
  bool keepsBuffers(uint16_t queue) override { return queue == RECEIVE_QUEUE; }
  // Waking who waits for bytes or room: a few promises.
  size_t allocationBound() override { return 64 << 10; }

 private:
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

  kj::WaitScope waitScope{loop};
  kj::TimePoint now = kj::origin<kj::TimePoint>();
  kj::TimerImpl timer{now};
  OutputLog log{timer, LOG_BYTES};
  InputQueue input;
  kj::Maybe<OutputLog::Reader> reader;
  std::vector<virtio::Virtqueue*> active;
  kj::Maybe<ReceiveRing> receive;
  kj::Maybe<TransmitRing> transmit;
};

}  // namespace
}  // namespace troupe::console

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return troupe::fuzz::runOnce<troupe::console::FuzzedConsole>(data, size);
}
