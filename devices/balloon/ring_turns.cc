#include "devices/balloon/ring_turns.h"

#include <kj/debug.h>
#include <sys/eventfd.h>

#include <cstdlib>

#include "devices/virtio/queue_flight.h"

namespace troupe::balloon {

RingTurns::RingTurns(kj::UnixEventPort& events, virtio::ActiveQueue queueParam,
                     const virtio::GuestMemory& memory, virtio::DriverLink& link, Turn turn,
                     GivenBack givenBack, kj::Maybe<virtio::HostInputs&> flight)
    : queue(kj::mv(queueParam)),
      link(link),
      turn(kj::mv(turn)),
      givenBack(kj::mv(givenBack)),
      flight(flight),
      batch(memory),
      timer(events.getTimer()),
      kick(events, queue.kick, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      // Not before the constructor of whoever owns this is done.
      serving(
          kj::evalLater([this] { return serve(); }).eagerlyEvaluate([](kj::Exception&& exception) {
            // A broker that is gone is seen by whoever serves the connection.
            if (exception.getType() == kj::Exception::Type::DISCONNECTED) return;
            KJ_LOG(FATAL, "serving the queue failed", exception);
            std::abort();
          })) {}

void RingTurns::wake() {
  isWoken = true;
  KJ_IF_MAYBE (fulfiller, sleeper) {
    (*fulfiller)->fulfill();
  }
}

kj::Promise<void> RingTurns::serve() {
  isWoken = false;
  if (!mayBegin()) return sleep();
  batch.clear();
  bool goesOn = turn(batch);
  auto returned = queue.ring->unpublished();
  if (returned.size() > 0 || !batch.isEmpty()) {
    return giveBack(returned).then([this](uint64_t bytes) {
      givenBack(bytes);
      // The only failure is a counter that is full: then the interrupt is pending anyway.
      if (queue.ring->publish()) eventfd_write(queue.call, 1);
      return nextTurn();
    });
  }
  if (queue.ring->broken()) {
    link.needsReset();
    return kj::READY_NOW;
  }
  if (goesOn || isWoken || queue.ring->hasWork()) return nextTurn();
  return sleep();
}

// A turn that is recorded; in a replay, each takes what it took then.
bool RingTurns::mayBegin() {
  KJ_IF_MAYBE (inputs, flight) {
    if (inputs->isReplaying()) return inputs->takeArrived(HostCall::Kind::TURN);
    inputs->called({HostCall::Kind::TURN}, 0);
  }
  return true;
}

kj::Promise<uint64_t> RingTurns::giveBack(kj::ArrayPtr<const virtio::UsedElement> returned) {
  auto ranges = batch.ranges();
  auto answer = link.returnChains(queue.index, returned, ranges);
  KJ_IF_MAYBE (inputs, flight) {
    virtio::HostInputs::Call call{HostCall::Kind::GIVE_BACK, returned.size()};
    for (auto& range : ranges)
      call.bytes += range.size;
    iovec asked[] = {
        {const_cast<virtio::UsedElement*>(returned.begin()), returned.asBytes().size()},
        {const_cast<virtio::GuestRange*>(ranges.begin()), ranges.asBytes().size()}};
    call.sum = virtio::sumOf(asked, asked[0].iov_len + asked[1].iov_len);
    return answer.then([call, inputs](uint64_t bytes) {
      inputs->called(call, bytes);
      return bytes;
    });
  }
  return kj::mv(answer);
}

// The kick is never read: the loop's interest is edge-triggered, and hasWork() was looked at since
// the loop last looked at its fds.
kj::Promise<void> RingTurns::sleep() {
  auto woken = kj::newPromiseAndFulfiller<void>();
  sleeper = kj::mv(woken.fulfiller);
  return kick.whenBecomesReadable().exclusiveJoin(kj::mv(woken.promise)).then([this] {
    sleeper = nullptr;
    return serve();
  });
}

// After everybody else of this loop. A promise that is ready at once would not do: with one always
// ready the loop never looks at its fds.
kj::Promise<void> RingTurns::nextTurn() {
  return timer.afterDelay(0 * kj::NANOSECONDS).then([this] { return serve(); });
}

}  // namespace troupe::balloon
