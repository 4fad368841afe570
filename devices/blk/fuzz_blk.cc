// Fuzzes virtio-blk from its rings to its system calls, on disks in memory, in the page cache and
// with O_DIRECT, behind which stands a kernel that fails, waits and falls short as it is told.
#include <kj/debug.h>

#include "devices/blk/blk_worker.h"
#include "devices/blk/fuzz_kernel.h"
#include "devices/blk/fuzz_request.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/session.h"

namespace troupe::blk {
namespace {

using fuzz::Op;
using fuzzing::FakeKernel;
using fuzzing::kernel;

// Bits of a driver's features that say which disk this is.
constexpr uint64_t CHOOSE_CACHED = 1ull << 60;
constexpr uint64_t CHOOSE_DIRECT = 1ull << 61;

constexpr size_t QUEUES = 2;

// A disk and the workers of its queues. They live on, as a queue's thread does; what they have
// learnt of the kernel goes with them.
struct Served {
  const Disk disk;
  virtio::RateLimit limit{virtio::TokenBucket(0, 1), virtio::TokenBucket(0, 1)};
  BlkSettings settings{disk, limit, {'f', 'u', 'z', 'z'}, 0};
  kj::Own<BlkWorker> workers[QUEUES];

  Served(int fd, Disk::Access access) : disk(fd, access) {}
};

Served& served(uint64_t features) {
  static Served disks[] = {
      {fuzzing::fileInMemory(), Disk::Access::READ_WRITE},
      {fuzzing::fileInMemory(), Disk::Access::READ_ONLY},
      {fuzzing::fileInCache(), Disk::Access::READ_WRITE},
      {fuzzing::fileInCache(), Disk::Access::READ_ONLY},
      {fuzzing::fileDirect(), Disk::Access::READ_WRITE},
      {fuzzing::fileDirect(), Disk::Access::READ_ONLY},
  };
  size_t kind = features & CHOOSE_DIRECT ? 2 : features & CHOOSE_CACHED ? 1 : 0;
  return disks[2 * kind + (features & virtio::BLK_F_RO ? 1 : 0)];
}

class FuzzedBlk final: public fuzz::FuzzedDevice {
 public:
  FuzzedBlk() { kernel().reset(); }

  std::vector<uint16_t> queueSizes() override { return {QUEUE_SIZE, QUEUE_SIZE}; }
  uint64_t features() override {
    return virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX | virtio::BLK_F_FLUSH;
  }
  uint64_t choices() override { return CHOOSE_CACHED | CHOOSE_DIRECT | virtio::BLK_F_RO; }

  void start(uint64_t features, const std::vector<virtio::Virtqueue*>& rings) override {
    Served& chosen = served(features);
    kernel().setReadOnly(chosen.disk.shape().readOnly);
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
  }

  void kick(uint16_t queue) override {
    BlkWorker& worker = **workers[queue];
    worker.setNotifications(false);
    worker.turn();
    worker.setNotifications(true);
    (void)worker.hasWork();
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

  void settle() override {
    kernel().setMood(FakeKernel::Mood::WELL, 0, 0);
    kernel().setPrompt(true);
    kernel().complete(kernel().underWay(), 0);
  }

 private:
  std::atomic<DiskIo::Durability> durability{DiskIo::Durability::VOLATILE};
  kj::Own<BlkWorker>* workers[QUEUES] = {};
};

}  // namespace
}  // namespace troupe::blk

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return troupe::fuzz::runOnce<troupe::blk::FuzzedBlk>(data, size);
}
