// Fuzzes virtio-balloon: its queues, with a broker that looks at every range it is asked to give
// back.
#include <kj/debug.h>

#include "devices/balloon/fuzz_request.h"
#include "devices/balloon/page_queues.h"
#include "devices/balloon/statistics_queue.h"
#include "devices/balloon/wire.h"
#include "tests/fuzz/finding.h"
#include "tests/fuzz/guest_space.h"
#include "tests/fuzz/session.h"

namespace troupe::balloon {
namespace {

using fuzz::Op;

enum Queue : uint16_t { INFLATE, STATISTICS, HINT, REPORT, QUEUES };

bool isRam(const virtio::GuestRange& range) {
  for (auto& region : fuzz::REGIONS) {
    uint64_t offset = range.guestAddress - region.guestAddress;
    if (offset < region.size && range.size <= region.size - offset) return true;
  }
  return false;
}

class FuzzedBalloon final: public fuzz::FuzzedDevice {
 public:
  std::vector<uint16_t> queueSizes() override { return {128, 128, 128, 128}; }
  uint64_t features() override { return virtio::F_INDIRECT_DESC; }
  void use(const virtio::GuestMemory& memory) override { batch.emplace(memory); }

  void start(uint64_t, const std::vector<virtio::Virtqueue*>& rings) override {
    active = rings;
    if (rings[INFLATE] != nullptr) inflate.emplace(*rings[INFLATE]);
    if (rings[STATISTICS] != nullptr) statistics.emplace(*rings[STATISTICS], said);
    if (rings[HINT] != nullptr) hints.emplace(*rings[HINT], round);
    if (rings[REPORT] != nullptr) reports.emplace(*rings[REPORT]);
  }
  void stop() override {
    inflate = nullptr;
    statistics = nullptr;
    hints = nullptr;
    reports = nullptr;
  }

  void kick(uint16_t queue) override {
    auto& pages = KJ_ASSERT_NONNULL(batch);
    pages.clear();
    turn(queue, pages);
    look(pages.ranges());
    active[queue]->publish();
  }

  void request(const Op& op, fuzz::RequestTemplate& request) override {
    chooseRequest(op, request);
  }

  // What the host wants: a round of hints, new statistics; and what the driver says of poison.
  void event(const Op& op) override {
    KJ_IF_MAYBE (queue, hints) {
      if (op.a % 3 == 0) queue->ask(FIRST_CMD_ID + op.b % 4);
    }
    KJ_IF_MAYBE (queue, statistics) {
      if (op.a % 3 == 1 && queue->ask()) active[STATISTICS]->publish();
    }
    if (op.a % 3 == 2) poisons = op.b & 1;
  }

  // An array of six million numbers, all of them read.
  int turnsToSettle() override { return 4096; }
  bool keepsBuffers(uint16_t queue) override { return queue == STATISTICS; }

 private:
  void turn(uint16_t queue, PageBatch& pages) {
    switch (queue) {
      case INFLATE:
        return KJ_ASSERT_NONNULL(inflate).turn(pages);
      case STATISTICS:
        KJ_ASSERT_NONNULL(statistics).turn();
        if (KJ_ASSERT_NONNULL(statistics).statistics().size() > StatisticsQueue::MOST) {
          fuzz::finding("more statistics are kept than there is room for");
        }
        return;
      case HINT:
        KJ_ASSERT_NONNULL(hints).turn(pages, !poisons);
        KJ_ASSERT_NONNULL(hints).takeEnd();
        return;
      case REPORT:
        return KJ_ASSERT_NONNULL(reports).turn(pages, !poisons);
    }
  }

  // As the broker does (broker/ram_deputy.cc), which would refuse the call.
  void look(kj::ArrayPtr<const virtio::GuestRange> ranges) {
    uint64_t end = 0;
    uint64_t bytes = 0;
    for (auto& range : ranges) {
      if (!isRam(range)) fuzz::finding("a page is given back that is not in RAM");
      if (range.guestAddress % PAGE_BYTES != 0 || range.size % PAGE_BYTES != 0 || range.size == 0) {
        fuzz::finding("what is given back is not made of whole pages");
      }
      if (range.guestAddress < end) fuzz::finding("ranges are not in order");
      end = range.guestAddress + range.size;
      bytes += range.size;
    }
    if (ranges.size() > PageBatch::MAX_RANGES || bytes > PageBatch::MAX_PAGES * PAGE_BYTES) {
      fuzz::finding("more is given back than one call may");
    }
  }

  std::vector<virtio::Virtqueue*> active;
  kj::Maybe<PageBatch> batch;
  kj::Maybe<InflateQueue> inflate;
  kj::Maybe<StatisticsQueue> statistics;
  HintRound round;
  KeptStatistics said;
  kj::Maybe<HintQueue> hints;
  kj::Maybe<FreePageQueue> reports;
  bool poisons = false;
};

}  // namespace
}  // namespace troupe::balloon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return troupe::fuzz::runOnce<troupe::balloon::FuzzedBalloon>(data, size);
}
