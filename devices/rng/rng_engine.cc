#include "devices/rng/rng_engine.h"

#include <kj/debug.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include <cstdlib>

#include "devices/virtio/spin.h"

namespace troupe::rng {
namespace {

constexpr uint16_t QUEUE_SIZE = 8;  // drivers keep one request

// The kernel's generator.
class KernelRandom final: public RandomSource {
 public:
  ssize_t fill(kj::ArrayPtr<kj::byte> bytes) override {
    return getrandom(bytes.begin(), bytes.size(), 0);
  }
};

virtio::RateLimit limitOf(const RngRate& rate) {
  using virtio::TokenBucket;
  KJ_REQUIRE(
      TokenBucket::accepts(rate.bytesPerSecond, rate.burstBytes) &&
          TokenBucket::accepts(rate.requestsPerSecond, rate.burstRequests),
      "TRP-rng-001: a rate is at most 1 TiB or 2^40 requests in a second, its burst from 1 to "
      "an hour's worth");
  return virtio::RateLimit{TokenBucket(rate.bytesPerSecond, rate.burstBytes),
                           TokenBucket(rate.requestsPerSecond, rate.burstRequests)};
}

}  // namespace

// Watches the kick from start() to stop(). The eventfd is never read: the loop's interest is
// edge-triggered, each notification is an edge of its own, and the count means nothing.
struct RngEngine::Active {
  Active(kj::UnixEventPort& events, virtio::ActiveQueue queueParam, virtio::RateLimit& limit,
         virtio::DriverLink& link, kj::Maybe<RandomSource&> source)
      : queue(kj::mv(queueParam)),
        limit(limit),
        requests(*queue.ring, source.orDefault(random), limit),
        link(link),
        timer(events.getTimer()),
        kick(events, queue.kick, kj::UnixEventPort::FdObserver::OBSERVE_READ),
        serving(serve().eagerlyEvaluate([](kj::Exception&& exception) {
          KJ_LOG(FATAL, "serving the queue failed", exception);
          std::abort();
        })) {}

  kj::Promise<void> serve() {
    uint64_t now = limit.unlimited() ? 0 : virtio::monotonicNs();
    // The only failure is a counter that is full: then the interrupt is pending anyway.
    if (requests.serve(now)) eventfd_write(queue.call, 1);
    if (queue.ring->broken()) {
      link.needsReset();
      return kj::READY_NOW;
    }
    // A driver that keeps adding gets its next batch only after everybody else of this loop. A
    // promise that is ready at once would not do: with one always ready the loop never looks at its
    // fds, and the broker's reset would lie there unread.
    if (queue.ring->hasWork()) {
      return timer.afterDelay(limit.waitNs(now) * kj::NANOSECONDS).then([this] { return serve(); });
    }
    return kick.whenBecomesReadable().then([this] { return serve(); });
  }

  virtio::ActiveQueue queue;
  virtio::RateLimit& limit;
  KernelRandom random;
  RngQueue requests;
  virtio::DriverLink& link;
  kj::Timer& timer;
  kj::UnixEventPort::FdObserver kick;
  kj::Promise<void> serving;
};

RngEngine::RngEngine(kj::UnixEventPort& events, const RngRate& rate,
                     kj::Maybe<RandomSource&> source)
    : events(events), source(source), limit(limitOf(rate)) {}

RngEngine::~RngEngine() noexcept(false) {}

virtio::DeviceDescription RngEngine::describe() {
  virtio::DeviceDescription description;
  description.deviceType = virtio::ID_ENTROPY;
  description.features = virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;
  description.queueSizes = kj::heapArray<uint16_t>({QUEUE_SIZE});
  description.suspects = virtio::Suspects::ALONE;
  return description;  // no configuration space, §5.4.4
}

void RngEngine::start(const virtio::GuestMemory&, uint64_t, kj::Array<virtio::ActiveQueue> queues,
                      virtio::DriverLink& link) {
  if (queues.size() == 0) return;  // a driver that enabled no queue gets no bytes
  active = kj::heap<Active>(events, kj::mv(queues[0]), limit, link, source);
}

kj::Promise<void> RngEngine::stop() {
  active = nullptr;
  return kj::READY_NOW;
}

}  // namespace troupe::rng
