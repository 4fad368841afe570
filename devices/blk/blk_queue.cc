#include "devices/blk/blk_queue.h"

#include <kj/debug.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "devices/virtio/spin.h"

namespace troupe::blk {
namespace {

// `limitNs`: 0 waits for as long as it takes.
void waitFor(kj::ArrayPtr<const int> eventFds, uint64_t limitNs = 0) {
  pollfd fds[2];
  KJ_ASSERT(eventFds.size() <= 2);
  for (size_t i = 0; i < eventFds.size(); i++)
    fds[i] = pollfd{eventFds[i], POLLIN, 0};
  timespec limit{time_t(limitNs / 1000000000), long(limitNs % 1000000000)};
  KJ_SYSCALL(ppoll(fds, eventFds.size(), limitNs == 0 ? nullptr : &limit, nullptr));
  for (size_t i = 0; i < eventFds.size(); i++) {
    eventfd_t count;
    // The count means nothing, and somebody else may have taken it.
    if (fds[i].revents != 0) eventfd_read(eventFds[i], &count);
  }
}

}  // namespace

BlkQueue::BlkQueue(const BlkSettings& settings, uint16_t index, int wake, int events,
                   kj::Function<void()> confine)
    : settings(settings), index(index), wake(wake), events(events) {
  thread = kj::heap<kj::Thread>([this, confine = kj::mv(confine)]() mutable { run(confine); });
  while (state.load(std::memory_order_acquire) == State::STARTING)
    waitFor({events});
  KJ_IF_MAYBE (failure, startFailure) {
    kj::throwFatalException(kj::mv(*failure));
  }
}

BlkQueue::~BlkQueue() noexcept(false) {
  moveTo(State::ENDED);
  thread = nullptr;  // joins
}

void BlkQueue::start(const BlkWork& newWork) {
  KJ_REQUIRE(atRest(), "already started");
  work = newWork;
  work.ring->beatIn(pulse);
  moveTo(State::SERVING);
}

void BlkQueue::stop() {
  moveTo(State::STOPPING);
}

void BlkQueue::haveDone(kj::Function<void()> newChore) {
  KJ_REQUIRE(isChoreDone(), "one at a time");
  chore = kj::mv(newChore);
  hasChore.store(true);
  eventfd_write(wake, 1);
}

void BlkQueue::moveTo(State next) {
  state.store(next);
  eventfd_write(wake, 1);
}

// The thread, from here on.
void BlkQueue::report(State next) {
  state.store(next);
  eventfd_write(events, 1);
}

void BlkQueue::run(kj::Function<void()>& confine) {
  kj::Own<BlkWorker> worker;
  startFailure = kj::runCatchingExceptions([&] {
    KJ_SYSCALL(prctl(PR_SET_NAME, kj::str("blk-q", index).cStr()));
    worker = kj::heap<BlkWorker>(settings, wake);
    confine();
  });
  bool failed = startFailure != nullptr;
  report(failed ? State::FAILED : State::AT_REST);
  if (failed) return;

  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { serveUntilEnded(*worker); })) {
    // Without its queue the device is no use: `troupe` sees the process end and says why.
    KJ_LOG(FATAL, "serving a queue failed", index, *exception);
    _exit(1);
  }
}

void BlkQueue::serveUntilEnded(BlkWorker& worker) {
  for (;;) {
    pulse.beat();
    if (hasChore.load()) doChore();
    switch (state.load(std::memory_order_acquire)) {
      case State::AT_REST:
        waitFor({wake});
        break;
      case State::SERVING:
        worker.begin(work);
        serve(worker);
        break;
      case State::STOPPING:
        comeToRest(worker);
        break;
      default:  // ENDED
        comeToRest(worker);
        return;
    }
  }
}

void BlkQueue::doChore() {
  // To count what an image uses, say.
  pulse.become(virtio::Sign::State::LABOURS);
  KJ_ASSERT_NONNULL(chore)();
  pulse.become(virtio::Sign::State::WORKS);
  hasChore.store(false, std::memory_order_release);
  eventfd_write(events, 1);
}

void BlkQueue::serve(BlkWorker& worker) {
  auto serving = [this] {
    return state.load(std::memory_order_acquire) == State::SERVING && isChoreDone();
  };
  bool reported = false;
  virtio::AdaptiveSpin<> spin(settings.spinMicros);
  worker.setNotifications(false);
  while (serving()) {
    pulse.beat();
    worker.turn();
    if (worker.ringIsBroken() && !reported) {
      reported = true;
      broken.store(true);
      eventfd_write(events, 1);
    }
    if (spin.until([&] { return worker.hasWork() || !serving(); })) continue;
    sleep(worker);
    spin.woken();
  }
}

void BlkQueue::sleep(BlkWorker& worker) {
  worker.setNotifications(true);
  // stop() and haveDone() store what they want before they write `wake`, so one that is not seen
  // here ends the wait.
  if (!worker.hasWork()) {
    // Nothing a driver does after it broke the ring matters, and it shall not keep us awake.
    if (worker.ringIsBroken()) {
      waitFor({wake});
    } else if (uint64_t limitNs = worker.throttledNs()) {
      waitFor({wake}, limitNs);  // a kick would change nothing
    } else {
      waitFor({wake, work.kick});
    }
  }
  worker.setNotifications(false);
}

// Also without any work before, when it has nothing to wait for.
void BlkQueue::comeToRest(BlkWorker& worker) {
  while (!worker.abandon()) {
    pulse.beat();
    if (!worker.hasDiskWork()) waitFor({wake});
  }
  State expected = State::STOPPING;
  state.compare_exchange_strong(expected, State::AT_REST);
  eventfd_write(events, 1);
}

}  // namespace troupe::blk
