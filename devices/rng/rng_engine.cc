#include "devices/rng/rng_engine.h"

#include <kj/debug.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include <cstdlib>

namespace troupe::rng {
namespace {

constexpr uint16_t QUEUE_SIZE = 8;  // drivers keep one request

// Fills the front of what is writable and returns how many bytes that were. None is a request with
// nothing to fill, or a host that has no random bytes: the driver sees a used length of 0.
uint32_t fill(virtio::Chain& chain) {
  uint32_t written = 0;
  for (const iovec& piece : chain.writable()) {
    size_t wanted = kj::min(piece.iov_len, MAX_BYTES_PER_REQUEST - written);
    if (wanted == 0) break;
    ssize_t got = getrandom(piece.iov_base, wanted, 0);
    if (got < 0) break;
    written += got;
    if (size_t(got) < wanted) break;  // a signal cut it short: fewer bytes are a fine answer
  }
  return written;
}

}  // namespace

// Watches the kick from start() to stop(). The eventfd is never read: the loop's interest is
// edge-triggered, each notification is an edge of its own, and the count means nothing.
struct RngEngine::Active {
  Active(kj::UnixEventPort& events, virtio::ActiveQueue queueParam, virtio::DriverLink& link)
      : queue(kj::mv(queueParam)),
        link(link),
        timer(events.getTimer()),
        kick(events, queue.kick, kj::UnixEventPort::FdObserver::OBSERVE_READ),
        serving(serve().eagerlyEvaluate([](kj::Exception&& exception) {
          KJ_LOG(FATAL, "serving the queue failed", exception);
          std::abort();
        })) {}

  kj::Promise<void> serve() {
    drain();
    if (queue.ring->broken()) {
      link.needsReset();
      return kj::READY_NOW;
    }
    // A driver that keeps adding gets its next batch only after everybody else of this loop. A
    // promise that is ready at once would not do: with one always ready the loop never looks at its
    // fds, and the broker's reset would lie there unread.
    if (queue.ring->hasWork()) {
      return timer.afterDelay(0 * kj::NANOSECONDS).then([this] { return serve(); });
    }
    return kick.whenBecomesReadable().then([this] { return serve(); });
  }

  // One batch: at most as many requests as the ring holds.
  void drain() {
    queue.ring->disableNotifications();
    for (;;) {
      KJ_IF_MAYBE (chain, queue.ring->pop()) {
        uint32_t written = fill(*chain);
        queue.ring->push(kj::mv(*chain), written);
      } else {
        break;
      }
    }
    // The only failure is a counter that is full: then the interrupt is pending anyway.
    if (queue.ring->publish()) eventfd_write(queue.call, 1);
    queue.ring->enableNotifications();
  }

  virtio::ActiveQueue queue;
  virtio::DriverLink& link;
  kj::Timer& timer;
  kj::UnixEventPort::FdObserver kick;
  kj::Promise<void> serving;
};

RngEngine::RngEngine(kj::UnixEventPort& events) : events(events) {}

RngEngine::~RngEngine() noexcept(false) {}

virtio::DeviceDescription RngEngine::describe() {
  virtio::DeviceDescription description;
  description.deviceType = virtio::ID_ENTROPY;
  description.features = virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;
  description.queueSizes = kj::heapArray<uint16_t>({QUEUE_SIZE});
  return description;  // no configuration space, §5.4.4
}

void RngEngine::start(const virtio::GuestMemory&, uint64_t, kj::Array<virtio::ActiveQueue> queues,
                      virtio::DriverLink& link) {
  if (queues.size() == 0) return;  // a driver that enabled no queue gets no bytes
  active = kj::heap<Active>(events, kj::mv(queues[0]), link);
}

kj::Promise<void> RngEngine::stop() {
  active = nullptr;
  return kj::READY_NOW;
}

}  // namespace troupe::rng
