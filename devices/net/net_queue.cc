#include "devices/net/net_queue.h"

#include <kj/debug.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "devices/virtio/spin.h"

namespace troupe::net {
namespace {

constexpr uint64_t SECOND_NS = 1000000000;

// The host is asked for frames only at each so-manieth look for work: that is a system call.
constexpr uint32_t LOOKS_PER_CALL = 4;

void clear(int eventFd) {
  eventfd_t count;
  eventfd_read(eventFd, &count);  // the count means nothing, and somebody else may have taken it
}

void waitFor(int eventFd) {
  pollfd fd{eventFd, POLLIN, 0};
  KJ_SYSCALL(ppoll(&fd, 1, nullptr, nullptr));
  clear(eventFd);
}

}  // namespace

NetQueue::NetQueue(const NetSettings& settings, Backend& backend, uint16_t index, int wake,
                   int events, kj::Function<void()> confine)
    : settings(settings),
      backend(backend),
      index(index),
      wake(wake),
      events(events),
      pair(settings, backend) {
  thread = kj::heap<kj::Thread>([this, confine = kj::mv(confine)]() mutable { run(confine); });
  while (state.load(std::memory_order_acquire) == State::STARTING)
    waitFor(events);
  KJ_IF_MAYBE (failure, startFailure) {
    kj::throwFatalException(kj::mv(*failure));
  }
}

NetQueue::~NetQueue() noexcept(false) {
  moveTo(State::ENDED);
  thread = nullptr;  // joins
}

void NetQueue::start(const PairWork& newWork) {
  KJ_REQUIRE(atRest(), "already started");
  work = newWork;
  for (auto* ring : {work.receive.ring, work.transmit.ring}) {
    // A turn may take a ring full of large frames, each of which takes its time.
    if (ring != nullptr) ring->beatIn(pulse);
  }
  moveTo(State::SERVING);
}

void NetQueue::stop() {
  moveTo(State::STOPPING);
}

void NetQueue::moveTo(State next) {
  state.store(next);
  eventfd_write(wake, 1);
}

// The thread, from here on.
void NetQueue::report(State next) {
  state.store(next);
  eventfd_write(events, 1);
}

void NetQueue::run(kj::Function<void()>& confine) {
  startFailure = kj::runCatchingExceptions([&] {
    KJ_SYSCALL(prctl(PR_SET_NAME, kj::str("net-q", index).cStr()));
    confine();
  });
  bool failed = startFailure != nullptr;
  report(failed ? State::FAILED : State::AT_REST);
  if (failed) return;

  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { serveUntilEnded(); })) {
    // Without its queues the device is no use: `troupe` sees the process end and says why.
    KJ_LOG(FATAL, "serving a queue pair failed", index, *exception);
    _exit(1);
  }
}

void NetQueue::serveUntilEnded() {
  for (;;) {
    pulse.beat();
    switch (state.load(std::memory_order_acquire)) {
      case State::AT_REST:
        waitFor(wake);
        break;
      case State::SERVING:
        pair.begin(work);
        serve();
        break;
      case State::STOPPING: {
        State expected = State::STOPPING;
        state.compare_exchange_strong(expected, State::AT_REST);
        eventfd_write(events, 1);
        break;
      }
      default:  // ENDED
        return;
    }
  }
}

void NetQueue::serve() {
  saidBroken = false;
  uint32_t looks = 0;
  virtio::AdaptiveSpin<> spin(settings.spinMicros);
  pair.awake();
  while (isServing()) {
    pulse.beat();
    pair.turn();
    sayWhatHappened();
    bool found = spin.until([&] {
      if (pair.hasWork() || !isServing()) return true;
      return looks++ % LOOKS_PER_CALL == 0 && pair.look();
    });
    if (found) continue;
    sleep();
    spin.woken();
  }
}

void NetQueue::sayWhatHappened() {
  if (pair.isBroken() && !saidBroken) {
    saidBroken = true;
    broken.store(true);
    eventfd_write(events, 1);
  }
  if (pair.isGone() && !gone.load()) {
    gone.store(true);
    eventfd_write(events, 1);
  }
}

void NetQueue::sleep() {
  auto waits = pair.prepareToSleep();
  // stop() stores what it wants before it writes `wake`, so one that is not seen here ends the
  // wait.
  if (!pair.hasWork()) {
    short hostEvents = (waits.input ? POLLIN : 0) | (waits.room ? POLLOUT : 0);
    // Its end is always looked for, and once it is closed nothing.
    pollfd fds[] = {{wake, POLLIN, 0},
                    {waits.receiveKick ? work.receive.kick : -1, POLLIN, 0},
                    {waits.transmitKick ? work.transmit.kick : -1, POLLIN, 0},
                    {pair.isGone() ? -1 : backend.fd(), hostEvents, 0}};
    timespec limit{time_t(waits.limitNs / SECOND_NS), long(waits.limitNs % SECOND_NS)};
    KJ_SYSCALL(ppoll(fds, kj::size(fds), waits.limitNs == 0 ? nullptr : &limit, nullptr));
    for (size_t i = 0; i < 3; i++)
      if (fds[i].revents != 0) clear(fds[i].fd);
    bool closed = fds[3].revents & (POLLERR | POLLHUP | POLLNVAL);
    if (closed && !(fds[3].revents & POLLIN)) pair.hostIsGone();
  }
  pair.awake();
}

}  // namespace troupe::net
