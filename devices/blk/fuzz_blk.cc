// Fuzzes virtio-blk from its rings to its system calls, on disks in memory, in the page cache and
// with O_DIRECT, read-write, read-only and volatile, behind which stands a kernel that fails, waits
// and falls short as it is told; beside a model of what a disk has to answer.
#include <kj/debug.h>

#include <optional>

#include "devices/blk/blk_worker.h"
#include "devices/blk/fuzz_kernel.h"
#include "devices/blk/fuzz_model.h"
#include "devices/blk/fuzz_request.h"
#include "devices/blk/volatile_disk.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/session.h"

namespace troupe::blk {
namespace {

using fuzz::Op;
using fuzzing::DiskModel;
using fuzzing::FakeKernel;
using fuzzing::kernel;

// Bits of a driver's features that say which disk this is.
constexpr uint64_t CHOOSE_CACHED = 1ull << 60;
constexpr uint64_t CHOOSE_DIRECT = 1ull << 61;

constexpr uint64_t CHOOSE_VOLATILE = 1ull << 62;  // as the input's first driver says

constexpr size_t QUEUES = 2;
// No chain of an input is longer.
constexpr uint16_t FUZZED_QUEUE_SIZE = 32;
constexpr uint64_t VOLATILE_BYTES = 128 << 10;  // half of the disk

// A disk and the workers of its queues. They live on, as a queue's thread does; what they have
// learnt of the kernel goes with them.
struct Served {
  enum class Mode { READ_WRITE, READ_ONLY, VOLATILE };

  const Disk disk;
  std::optional<VolatileDisk> overlay;  // made anew for each input, at the same place
  virtio::RateLimit limit{virtio::TokenBucket(0, 1), virtio::TokenBucket(0, 1)};
  BlkSettings settings{disk, limit, {'f', 'u', 'z', 'z'}, 0};
  kj::Own<BlkWorker> workers[QUEUES];

  Served(int fd, Mode mode)
      : disk(fd, mode == Mode::READ_WRITE ? Disk::Access::READ_WRITE : Disk::Access::READ_ONLY) {
    if (mode != Mode::VOLATILE) return;
    startVolatile();
    settings.overlay = &*overlay;
  }
  void startVolatile() {
    overlay.emplace(fuzzing::volatileMemory(), disk, nullptr, VOLATILE_BYTES);
  }
};

Served& served(uint64_t features, bool isVolatile) {
  using Mode = Served::Mode;
  static Served disks[3][3] = {{{fuzzing::fileInMemory(), Mode::READ_WRITE},
                                {fuzzing::fileInMemory(), Mode::READ_ONLY},
                                {fuzzing::fileInMemory(), Mode::VOLATILE}},
                               {{fuzzing::fileInCache(), Mode::READ_WRITE},
                                {fuzzing::fileInCache(), Mode::READ_ONLY},
                                {fuzzing::fileInCache(), Mode::VOLATILE}},
                               {{fuzzing::fileDirect(), Mode::READ_WRITE},
                                {fuzzing::fileDirect(), Mode::READ_ONLY},
                                {fuzzing::fileDirect(), Mode::VOLATILE}}};
  size_t kind = features & CHOOSE_DIRECT ? 2 : features & CHOOSE_CACHED ? 1 : 0;
  if (isVolatile) return disks[kind][2];
  return disks[kind][features & virtio::BLK_F_RO ? 1 : 0];
}

DiskModel& model() {
  static DiskModel it;
  return it;
}

class FuzzedBlk final: public fuzz::FuzzedDevice {
 public:
  FuzzedBlk() {
    kernel().reset();
    model().reset();
  }

  std::vector<uint16_t> queueSizes() override { return {FUZZED_QUEUE_SIZE, FUZZED_QUEUE_SIZE}; }
  uint64_t features() override {
    return virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX | virtio::BLK_F_FLUSH;
  }
  uint64_t choices() override {
    return CHOOSE_CACHED | CHOOSE_DIRECT | CHOOSE_VOLATILE | virtio::BLK_F_RO;
  }

  void start(uint64_t features, const std::vector<virtio::Virtqueue*>& rings) override {
    Served& chosen = choose(features);
    kernel().setReadOnly(chosen.disk.shape().readOnly);
    model().setReadOnly(chosen.settings.shape().readOnly);
    durability =
        features & virtio::BLK_F_FLUSH ? DiskIo::Durability::VOLATILE : DiskIo::Durability::DURABLE;
    for (size_t i = 0; i < QUEUES; i++) {
      workers[i] = nullptr;
      if (rings[i] == nullptr) continue;
      auto& worker = chosen.workers[i];
      if (worker.get() == nullptr) worker = kj::heap<BlkWorker>(chosen.settings, -1);
      worker->begin(BlkWork{rings[i], -1, -1, &durability});
      workers[i] = &worker;
    }
  }

  void stop() override {
    for (auto worker : workers) {
      if (worker == nullptr) continue;
      for (int i = 0; !(*worker)->abandon(); i++) {
        if (i > 1000) fuzz::finding("a queue does not come to rest");
        kernel().complete(1, 0);
      }
      if (kernel().wasOdd()) *worker = nullptr;
    }
    model().dropAll();
  }

  void kick(uint16_t queue) override {
    BlkWorker& worker = **workers[queue];
    worker.setNotifications(false);
    worker.turn();
    worker.setNotifications(true);
    (void)worker.hasWork();
    if (kernel().memory.pagesHeld() > VOLATILE_BYTES / fuzzing::PAGE) {
      fuzz::finding("a volatile disk takes more memory than it may");
    }
  }

  void taken(uint16_t queue, uint16_t head, kj::ArrayPtr<const iovec> readable,
             kj::ArrayPtr<const iovec> writable) override {
    model().taken(queue, head, readable, writable);
  }
  void returned(uint16_t queue, uint16_t head, uint32_t written) override {
    model().returned(queue, head, written);
  }

  void request(const Op& op, fuzz::RequestTemplate& request) override {
    chooseRequest(op, request);
  }

  void event(const Op& op) override {
    switch (op.a % 4) {
      case 0:
        kernel().complete(op.b % 8, op.c);
        break;
      case 1:
        kernel().setPrompt(op.b & 1);
        break;
      default:
        kernel().setMood(FakeKernel::Mood(op.b % FakeKernel::MOODS), op.c % 8, op.d % 9000);
        break;
    }
  }
  void config(const Op& op) override {
    durability = op.a & 1 ? DiskIo::Durability::DURABLE : DiskIo::Durability::VOLATILE;
  }

  // What O_DIRECT reads short on its way into a volatile disk goes on through a buffer.
  size_t allocationBound() override { return volatileDisk == nullptr ? 0 : 4 << 20; }

  void settle() override {
    kernel().setMood(FakeKernel::Mood::WELL, 0, 0);
    kernel().setPrompt(true);
    kernel().complete(kernel().underWay(), 0);
  }

 private:
  // A volatile disk stays the one it is: another would hold nothing of what was written.
  Served& choose(uint64_t features) {
    if (volatileDisk != nullptr) return *volatileDisk;
    Served& chosen = served(features, isNew && features & CHOOSE_VOLATILE);
    isNew = false;
    if (chosen.settings.overlay != nullptr) {
      chosen.startVolatile();
      volatileDisk = &chosen;
    }
    return chosen;
  }

  bool isNew = true;
  Served* volatileDisk = nullptr;
  std::atomic<DiskIo::Durability> durability{DiskIo::Durability::VOLATILE};
  kj::Own<BlkWorker>* workers[QUEUES] = {};
};

}  // namespace
}  // namespace troupe::blk

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return troupe::fuzz::runOnce<troupe::blk::FuzzedBlk>(data, size);
}
