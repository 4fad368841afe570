// Fuzzes virtio-rng: its queue, with a source of bytes that may run dry.
#include <kj/debug.h>

#include "devices/rng/fuzz_request.h"
#include "devices/rng/rng_queue.h"
#include "devices/virtio/guest_watch.h"
#include "tests/fuzz/session.h"

namespace troupe::rng {
namespace {

using fuzz::Op;

class FuzzedRng final: public fuzz::FuzzedDevice, public RandomSource {
 public:
  std::vector<uint16_t> queueSizes() override { return {8}; }
  uint64_t features() override { return virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX; }

  void start(uint64_t, const std::vector<virtio::Virtqueue*>& rings) override {
    if (rings[0] != nullptr) queue.emplace(*rings[0], *this, limit);
  }
  void stop() override { queue = nullptr; }
  void kick(uint16_t) override { KJ_ASSERT_NONNULL(queue).serve(0); }

  void request(const Op& op, fuzz::RequestTemplate& request) override {
    chooseRequest(op, request);
  }

  // How much the next call gets: all, less, or nothing at all.
  void event(const Op& op) override {
    fails = op.a % 4 == 1;
    most = op.a % 4 == 0 ? SIZE_MAX : op.c % 5000;
  }

 private:
  ssize_t fill(kj::ArrayPtr<kj::byte> bytes) override {
    if (fails) return -1;
    size_t size = kj::min(bytes.size(), most);
    virtio::watch::write(bytes.begin(), size);
    memset(bytes.begin(), 0x3c, size);
    return size;
  }

  virtio::RateLimit limit{virtio::TokenBucket(0, 1), virtio::TokenBucket(0, 1)};
  kj::Maybe<RngQueue> queue;
  bool fails = false;
  size_t most = SIZE_MAX;
};

}  // namespace
}  // namespace troupe::rng

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return troupe::fuzz::runOnce<troupe::rng::FuzzedRng>(data, size);
}
