#include "devices/balloon/balloon_engine.h"

#include <endian.h>
#include <kj/debug.h>

#include <cstddef>
#include <cstring>

#include "devices/balloon/page_queues.h"
#include "devices/balloon/queue_roles.h"
#include "devices/balloon/ring_turns.h"
#include "devices/balloon/statistics_queue.h"

namespace troupe::balloon {
namespace {

constexpr uint16_t QUEUE_SIZE = 128;  // Linux reports 32 pieces of free memory at a time
constexpr kj::Duration STATISTICS_WAIT = 500 * kj::MILLISECONDS;

}  // namespace

struct BalloonEngine::Active {
  Active(BalloonEngine& engine, const virtio::GuestMemory& memory, uint64_t features,
         virtio::DriverLink& link)
      : engine(engine),
        memory(memory),
        features(features),
        link(link),
        timer(engine.events.getTimer()) {}

  void serve(Role role, virtio::ActiveQueue queue) {
    auto& ring = *queue.ring;
    switch (role) {
      case Role::INFLATE:
        inflate.emplace(ring);
        return begin(kj::mv(queue), countPages(), [this](PageBatch& batch) {
          auto& requests = KJ_ASSERT_NONNULL(inflate);
          requests.turn(batch);
          return requests.isUnfinished();
        });
      case Role::DEFLATE:
        deflate.emplace(ring);
        return begin(kj::mv(queue), countPages(), [this](PageBatch&) {
          KJ_ASSERT_NONNULL(deflate).turn();
          return false;
        });
      case Role::STATISTICS:
        statistics.emplace(ring, engine.kept.statistics);
        begin(kj::mv(queue), countPages(), [this](PageBatch&) { return takeStatistics(); });
        statisticsTurns = *turns.back();
        return;
      case Role::FREE_PAGE_HINT:
        hints.emplace(ring, engine.kept.round);
        return begin(kj::mv(queue), countFreePages(), [this](PageBatch& batch) {
          auto& requests = KJ_ASSERT_NONNULL(hints);
          requests.turn(batch, mayTakeFreePages());
          if (requests.takeEnd()) endRound();
          return requests.isUnfinished();
        });
      case Role::REPORTING:
        reports.emplace(ring);
        return begin(kj::mv(queue), countFreePages(), [this](PageBatch& batch) {
          auto& requests = KJ_ASSERT_NONNULL(reports);
          requests.turn(batch, mayTakeFreePages());
          return requests.isUnfinished();
        });
    }
  }

  // Resolves when the driver has sent new statistics, or has had the time to.
  kj::Promise<void> newStatistics() {
    KJ_IF_MAYBE (its, statisticsTurns) {
      statisticsWanted = true;
      its->wake();
      if (statisticsComing == nullptr) {
        auto pair = kj::newPromiseAndFulfiller<void>();
        statisticsCome = kj::mv(pair.fulfiller);
        statisticsComing = pair.promise.fork();
      }
      return KJ_ASSERT_NONNULL(statisticsComing)
          .addBranch()
          .exclusiveJoin(timer.afterDelay(STATISTICS_WAIT))
          .catch_([](kj::Exception&&) {});  // the driver has gone
    }
    return kj::READY_NOW;
  }

  BalloonEngine& engine;
  const virtio::GuestMemory& memory;
  const uint64_t features;
  virtio::DriverLink& link;
  kj::Timer& timer;

  kj::Maybe<InflateQueue> inflate;
  kj::Maybe<DeflateQueue> deflate;
  kj::Maybe<StatisticsQueue> statistics;
  kj::Maybe<HintQueue> hints;
  kj::Maybe<FreePageQueue> reports;

  uint64_t nowNs() const { return (timer.now() - kj::origin<kj::TimePoint>()) / kj::NANOSECONDS; }

 private:
  void begin(virtio::ActiveQueue queue, RingTurns::GivenBack givenBack, RingTurns::Turn turn) {
    kj::Maybe<virtio::HostInputs&> flight;
    if (engine.inputs.size() > 0) flight = *engine.inputs[queue.index];
    turns.add(kj::heap<RingTurns>(engine.events, kj::mv(queue), memory, link, kj::mv(turn),
                                  kj::mv(givenBack), flight));
  }

  RingTurns::GivenBack countPages() {
    return [this](uint64_t bytes) { engine.kept.givenBackBytes += bytes; };
  }
  RingTurns::GivenBack countFreePages() {
    return [this](uint64_t bytes) {
      engine.kept.givenBackBytes += bytes;
      engine.kept.freePageBytes += bytes;
    };
  }

  // Free pages that the guest fills with a pattern, and expects to find it there again, are not
  // ours to turn into zeroes (§5.5.6.6).
  bool mayTakeFreePages() const {
    return !(features & F_PAGE_POISON) || engine.config.poisonVal == 0;
  }

  bool takeStatistics() {
    auto& requests = KJ_ASSERT_NONNULL(statistics);
    uint64_t before = requests.updates();
    requests.turn();
    // Numbers that a process before this one has read are as old as they were then.
    bool isNew = requests.updates() != before &&
                 !(requests.isReadAgain() && engine.kept.statistics.readAtNs != 0);
    if (isNew) {
      engine.kept.statistics.readAtNs = nowNs();
      // What the driver gave without being asked, at its start, is as new as can be.
      statisticsWanted = false;
      statisticsComing = nullptr;
      KJ_IF_MAYBE (fulfiller, statisticsCome) {
        (*fulfiller)->fulfill();
      }
      statisticsCome = nullptr;
    }
    if (statisticsWanted && requests.ask()) statisticsWanted = false;
    return false;
  }

  // The driver keeps what it hinted until it hears that the round is over.
  void endRound() {
    engine.config.freePageHintCmdId = htole32(CMD_ID_DONE);
    engine.tellDriver();
  }

  kj::Maybe<RingTurns&> statisticsTurns;
  bool statisticsWanted = false;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> statisticsCome;
  kj::Maybe<kj::ForkedPromise<void>> statisticsComing;
  kj::Vector<kj::Own<RingTurns>> turns;
};

BalloonEngine::BalloonEngine(kj::UnixEventPort& events, bool hasStatistics,
                             kj::ArrayPtr<kj::byte> memory)
    : events(events),
      hasStatistics(hasStatistics),
      kept(memory.size() < sizeof(KeptBalloon) ? keptHere
                                               : *reinterpret_cast<KeptBalloon*>(memory.begin())) {
  takeKept();
  told = config;  // as the broker's copy is, once it has read the description
}

void BalloonEngine::takeKept() {
  config.numPages = kept.numPages;
  config.freePageHintCmdId = kept.freePageHintCmdId;
}

BalloonEngine::~BalloonEngine() noexcept(false) {}

virtio::DeviceDescription BalloonEngine::describe() {
  virtio::DeviceDescription description;
  description.deviceType = virtio::ID_BALLOON;
  description.features = F_DEFLATE_ON_OOM | F_FREE_PAGE_HINT | F_PAGE_POISON | F_PAGE_REPORTING |
                         (hasStatistics ? F_STATS_VQ : 0) | virtio::F_INDIRECT_DESC;
  description.queueSizes =
      kj::heapArray<uint16_t>({QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE});
  description.config = kj::heapArray(kj::arrayPtr(&config, 1).asBytes());
  description.configWriteMask = kj::heapArray<kj::byte>(sizeof(config));
  memset(description.configWriteMask.begin(), 0, sizeof(config));
  auto allow = [&](size_t offset) {
    memset(description.configWriteMask.begin() + offset, 0xff, sizeof(uint32_t));
  };
  allow(offsetof(BalloonConfigSpace, actual));
  allow(offsetof(BalloonConfigSpace, poisonVal));
  description.usedRings = virtio::UsedRing::COPY;
  return description;
}

void BalloonEngine::start(const virtio::GuestMemory& memory, uint64_t features,
                          kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) {
  uint32_t enabled = 0;
  for (auto& queue : queues)
    enabled |= 1u << queue.index;
  auto& now = *active.emplace(kj::heap<Active>(*this, memory, features, link));
  for (auto& queue : queues) {
    KJ_IF_MAYBE (role, roleOf(queue.index, features, enabled)) {
      now.serve(*role, kj::mv(queue));
    }
  }
  tellDriver();
}

// The process before may have been told something since this one was made.
void BalloonEngine::resume(const virtio::GuestMemory& memory, uint64_t features,
                           kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) {
  takeKept();
  start(memory, features, kj::mv(queues), link);
}

void BalloonEngine::forget() {
  kept.round = {};
  kept.statistics = {};
  config.freePageHintCmdId = htole32(CMD_ID_STOP);
  keepConfig();
}

void BalloonEngine::recordIn(virtio::FlightLog& log) {
  for (uint16_t queue = 0; queue < ROLE_COUNT; queue++)
    inputs.add(kj::heap<virtio::HostInputs>(log, queue));
}

kj::Promise<void> BalloonEngine::stop() {
  // What the next driver finds: an empty balloon, to be filled, and nothing to hint.
  active = nullptr;
  config.actual = 0;
  config.poisonVal = 0;
  config.freePageHintCmdId = htole32(CMD_ID_STOP);
  keepConfig();
  return kj::READY_NOW;
}

// Its driver goes on, so what it was told stays.
kj::Promise<void> BalloonEngine::handOver() {
  active = nullptr;
  return kj::READY_NOW;
}

kj::Promise<void> BalloonEngine::takeOver() {
  takeKept();
  told = config;  // as it is described from here on
  return kj::READY_NOW;
}

void BalloonEngine::writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  // A driver that writes more than its two fields finds the others as they were: the broker lets
  // only these through, and passes nothing else on.
  KJ_REQUIRE(offset <= sizeof(config) && data.size() <= sizeof(config) - offset);
  BalloonConfigSpace written = config;
  memcpy(reinterpret_cast<kj::byte*>(&written) + offset, data.begin(), data.size());
  config.actual = written.actual;
  config.poisonVal = written.poisonVal;
}

kj::Promise<void> BalloonEngine::hostEvent(HostEvent::Reader event) {
  if (event.isBalloonTarget()) {
    config.numPages = htole32(event.getBalloonTarget());
    tellDriver();
  } else if (event.isBalloonHint()) {
    askForHints();
  }
  return kj::READY_NOW;
}

// A driver in the midst of a round begins this one anew.
void BalloonEngine::askForHints() {
  KJ_IF_MAYBE (now, active) {
    KJ_IF_MAYBE (hints, (*now)->hints) {
      uint32_t round = kj::max(kept.nextRound, FIRST_CMD_ID);
      kept.nextRound = round == UINT32_MAX ? FIRST_CMD_ID : round + 1;
      config.freePageHintCmdId = htole32(round);
      hints->ask(round);
      tellDriver();
    }
  }
}

void BalloonEngine::keepConfig() {
  kept.numPages = config.numPages;
  kept.freePageHintCmdId = config.freePageHintCmdId;
}

// A driver that comes later is told when it does.
void BalloonEngine::tellDriver() {
  keepConfig();
  KJ_IF_MAYBE (now, active) {
    auto tell = [&](size_t offset, uint32_t value, uint32_t& last) {
      if (value == last) return;
      last = value;
      (*now)->link.configChanged(offset, kj::arrayPtr(&value, 1).asBytes());
    };
    tell(offsetof(BalloonConfigSpace, numPages), config.numPages, told.numPages);
    tell(offsetof(BalloonConfigSpace, freePageHintCmdId), config.freePageHintCmdId,
         told.freePageHintCmdId);
  }
}

kj::Promise<void> BalloonEngine::report(DeviceReport::Builder report) {
  kj::Promise<void> ready = kj::READY_NOW;
  KJ_IF_MAYBE (now, active) {
    ready = (*now)->newStatistics();
  }
  return ready.then([this, report]() mutable { fill(report.initBalloon()); });
}

void BalloonEngine::fill(BalloonReport::Builder report) const {
  report.setTargetPages(le32toh(config.numPages));
  report.setActualPages(le32toh(config.actual));
  report.setGivenBackBytes(kept.givenBackBytes);
  report.setFreePageBytes(kept.freePageBytes);
  KJ_IF_MAYBE (now, active) {
    report.setFeatures((*now)->features);
    KJ_IF_MAYBE (statistics, (*now)->statistics) {
      if (kept.statistics.readAtNs == 0) return;
      report.setHasStatistics(true);
      uint64_t nowNs = (*now)->nowNs();
      report.setStatisticsAgeMs((nowNs - kj::min(kept.statistics.readAtNs, nowNs)) / 1000000);
      auto list = report.initStatistics(statistics->statistics().size());
      for (kj::uint i = 0; i < list.size(); i++) {
        list[i].setTag(statistics->statistics()[i].tag);
        list[i].setValue(statistics->statistics()[i].value);
      }
    }
  }
}

}  // namespace troupe::balloon
