// Fuzzes virtio-net from its rings to its system calls: one queue pair and the control queue, with
// frames as messages, with headers or without, and on a stream, before a host that is full, takes
// parts, refuses and sends what it likes.
#include <kj/debug.h>

#include "devices/net/control.h"
#include "devices/net/frame_backend.h"
#include "devices/net/fuzz_host.h"
#include "devices/net/fuzz_request.h"
#include "devices/net/net_pair.h"
#include "devices/net/stream_backend.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/session.h"

namespace troupe::net {
namespace {

using fuzz::Op;
using fuzzing::FakeHost;
using fuzzing::host;

// Bits of a driver's features that say which device this is.
constexpr uint64_t CHOOSE_STREAM = 1ull << 60;
constexpr uint64_t CHOOSE_PLAIN = 1ull << 61;
constexpr uint64_t CHOOSE_SPOOF_FILTER = 1ull << 62;
constexpr uint64_t CHOOSE_CAPTURE = 1ull << 63;

constexpr uint64_t OFFLOADS = virtio::NET_F_CSUM | virtio::NET_F_HOST_TSO4 |
                              virtio::NET_F_HOST_TSO6 | virtio::NET_F_HOST_ECN |
                              virtio::NET_F_HOST_UFO | virtio::NET_F_HOST_USO | GUEST_OFFLOADS;

constexpr uint16_t RECEIVE_QUEUE = 0;
constexpr uint16_t TRANSMIT_QUEUE = 1;
constexpr uint16_t CONTROL_QUEUE = 2;

class FuzzedNet final: public fuzz::FuzzedDevice {
 public:
  std::vector<uint16_t> queueSizes() override { return {256, 256, 64}; }
  uint64_t features() override {
    return virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX | virtio::NET_F_MRG_RXBUF |
           virtio::NET_F_CTRL_VQ | virtio::NET_F_CTRL_RX | virtio::NET_F_CTRL_RX_EXTRA |
           virtio::NET_F_CTRL_MAC_ADDR | virtio::NET_F_GUEST_ANNOUNCE | virtio::NET_F_MQ |
           virtio::NET_F_CTRL_GUEST_OFFLOADS | OFFLOADS;
  }
  uint64_t choices() override {
    return CHOOSE_STREAM | CHOOSE_PLAIN | CHOOSE_SPOOF_FILTER | CHOOSE_CAPTURE;
  }

  void start(uint64_t features, const std::vector<virtio::Virtqueue*>& rings) override {
    bool headers = !(features & (CHOOSE_STREAM | CHOOSE_PLAIN));
    if (!headers) features &= ~(OFFLOADS | virtio::NET_F_CTRL_GUEST_OFFLOADS);
    bool spoofFilter = features & CHOOSE_SPOOF_FILTER;
    host().begin({features, spoofFilter});
    if (features & CHOOSE_STREAM) {
      backend = kj::heap<StreamBackend>(fuzzing::STREAM_FD);
    } else {
      backend = kj::heap<FrameBackend>(
          headers ? fuzzing::HEADER_FD : fuzzing::PLAIN_FD,
          headers ? FrameBackend::Headers::FIRST : FrameBackend::Headers::NONE);
    }
    static Capture capture(fuzzing::CAPTURE_FD, UINT64_MAX, 1000);
    settings =
        kj::heap<NetSettings>(NetSettings{FUZZED_ADDRESS, spoofFilter, unlimited, unlimited,
                                          features & CHOOSE_CAPTURE ? &capture : nullptr, 0});
    control.emplace(FUZZED_ADDRESS, Control::Limits{features, 4, !spoofFilter});
    rules = kj::heap<SharedRules>(KJ_ASSERT_NONNULL(control).rules);
    pair = kj::heap<NetPair>(*settings, *backend);
    pair->begin(PairWork{
        {rings[RECEIVE_QUEUE], -1, -1}, {rings[TRANSMIT_QUEUE], -1, -1}, features, rules, 1});
    controlRing = rings[CONTROL_QUEUE];
  }

  void stop() override { pair = {}; }

  void kick(uint16_t queue) override {
    if (queue == CONTROL_QUEUE) return serveControl();
    pair->awake();
    pair->turn();
    pair->prepareToSleep();
    (void)pair->hasWork();
  }

  void request(const Op& op, fuzz::RequestTemplate& request) override {
    chooseRequest(op, request);
  }

  void event(const Op& op) override {
    switch (op.a % 8) {
      case 0:
        return host().setMood(FakeHost::Mood(op.b % FakeHost::MOODS), op.c % 8, op.d % 3000);
      case 1: {
        auto bytes = reinterpret_cast<const kj::byte*>(&op.d);
        return host().arriveRaw(kj::arrayPtr(bytes, op.b % sizeof(op.d)));
      }
      case 2:
        KJ_ASSERT_NONNULL(control).rules.linkUp = op.b & 1;
        return rules->set(KJ_ASSERT_NONNULL(control).rules);
      default: {
        virtio::NetHeader header{};
        if (op.b & 1) memcpy(&header, &op.d, sizeof(op.d));
        size_t bytes = op.b & 2 ? op.c : op.c % 2000;
        MacAddress destination = FUZZED_ADDRESS;
        if (op.b & 4) destination.bytes[0] ^= op.d;
        return host().arrive(header, bytes, destination);
      }
    }
  }

  void settle() override { host().setMood(FakeHost::Mood::WELL, 0, 0); }
  bool keepsBuffers(uint16_t queue) override { return queue == RECEIVE_QUEUE || pair->isBroken(); }
  // The fake host keeps what passes.
  size_t allocationBound() override { return 64 << 20; }

 private:
  // As ControlServer, whose target does what it is told at once.
  void serveControl() {
    for (int i = 0; i < 64; i++) {
      KJ_IF_MAYBE (chain, controlRing->pop()) {
        uint32_t written = 0;
        if (chain->reserveTail(1)) {
          auto command = KJ_ASSERT_NONNULL(control).execute(*chain);
          kj::byte status = command.effect == Control::Effect::REFUSED;
          bool inRange = command.pairs >= 1 && command.pairs <= 4;
          if (command.effect == Control::Effect::PAIRS && !inRange) {
            fuzz::finding("a number of pairs that are not there");
          }
          chain->writeTail(kj::arrayPtr(&status, 1));
          written = chain->writableBytes() == 0;
        }
        controlRing->push(kj::mv(*chain), written);
        rules->set(KJ_ASSERT_NONNULL(control).rules);
      } else {
        break;
      }
    }
    controlRing->publish();
    controlRing->enableNotifications();
  }

  virtio::RateLimit unlimited{virtio::TokenBucket(0, 1), virtio::TokenBucket(0, 1)};
  kj::Own<NetSettings> settings;
  kj::Own<Backend> backend;
  kj::Maybe<Control> control;
  kj::Own<SharedRules> rules;
  kj::Own<NetPair> pair;
  virtio::Virtqueue* controlRing = nullptr;
};

}  // namespace
}  // namespace troupe::net

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return troupe::fuzz::runOnce<troupe::net::FuzzedNet>(data, size);
}
