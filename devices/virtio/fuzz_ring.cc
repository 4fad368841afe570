// Fuzzes the ring alone: a device that takes chains, reads and writes some of each, holds some of
// them back and returns them in any order.
#include "tests/fuzz/session.h"

namespace troupe::virtio {
namespace {

using fuzz::Op;

class AnyDevice final: public fuzz::FuzzedDevice {
 public:
  std::vector<uint16_t> queueSizes() override { return {32, 16}; }
  uint64_t features() override { return F_INDIRECT_DESC | F_EVENT_IDX; }

  void start(uint64_t, const std::vector<Virtqueue*>& newRings) override {
    rings = newRings;
    held.clear();
    held.reserve(64);  // more than both rings hold
  }
  void stop() override {
    held.clear();
    rings.clear();
  }

  void kick(uint16_t queue) override {
    Virtqueue& ring = *rings[queue];
    ring.disableNotifications();
    for (;;) {
      KJ_IF_MAYBE (chain, ring.pop()) {
        Held one{queue, kj::mv(*chain), 0};
        work(one);
        if (holdBack > 0) {
          --holdBack;
          held.push_back(kj::mv(one));
        } else {
          finish(kj::mv(one));
        }
      } else {
        break;
      }
    }
    ring.publish();
    ring.enableNotifications();
    (void)ring.hasWork();
  }

  void request(const Op& op, fuzz::RequestTemplate& request) override {
    request.header.assign(op.b % 40, kj::byte(op.d));
    request.cut = op.b >> 8;
    request.readable = op.a & 1 ? op.c % 5000 : 0;
    request.writable = op.a & 2 ? op.c % 3000 : 0;
    request.tail = op.a & 4 ? op.c % 5 : 0;
    request.pieces = op.a >> 3;
  }

  // What the device does with the next chains; or it returns some that it held.
  void event(const Op& op) override {
    toRead = op.b % 600;
    toWrite = op.c % 700;
    tail = op.d % 5;
    if (op.a & 1) holdBack = op.a >> 1;
    if (!(op.a & 1)) settle(op.a >> 1);
  }
  void settle() override { settle(held.size()); }

 private:
  struct Held {
    uint16_t queue;
    Chain chain;
    uint32_t written;
  };

  // The chain is read and written as a parser would: in steps, by whole values, or past its end.
  void work(Held& one) {
    kj::byte bytes[700];
    uint32_t header;
    one.chain.read(header);
    one.chain.readBytes(kj::arrayPtr(bytes, toRead));
    bool hasTail = tail > 0 && one.chain.reserveTail(tail);
    memset(bytes, 0x5a, sizeof(bytes));
    size_t size = kj::min(uint64_t(toWrite), one.chain.writableBytes());
    if (one.chain.writeBytes(kj::arrayPtr(bytes, size))) one.written = size;
    if (!hasTail) return;
    bool complete = one.chain.writableBytes() == 0;
    one.chain.writeTail(kj::arrayPtr(bytes, tail));
    if (complete) one.written += tail;
  }

  void finish(Held&& one) { rings[one.queue]->push(kj::mv(one.chain), one.written); }

  void settle(size_t count) {
    for (; count > 0 && !held.empty(); count--) {
      // Neither the oldest nor the latest first.
      size_t i = held.size() / 2;
      Held one = kj::mv(held[i]);
      held.erase(held.begin() + i);
      finish(kj::mv(one));
    }
  }

  std::vector<Virtqueue*> rings;
  std::vector<Held> held;
  uint32_t toRead = 16;
  uint32_t toWrite = 16;
  uint32_t tail = 1;
  uint32_t holdBack = 0;
};

}  // namespace
}  // namespace troupe::virtio

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return troupe::fuzz::runOnce<troupe::virtio::AnyDevice>(data, size);
}
