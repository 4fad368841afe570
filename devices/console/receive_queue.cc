#include "devices/console/receive_queue.h"

namespace troupe::console {

ReceiveQueue::ReceiveQueue(kj::UnixEventPort& events, virtio::ActiveQueue queue, InputQueue& input,
                           OpenState& guest)
    : input(input),
      guest(guest),
      requests(*queue.ring, input),
      turns(
          events, kj::mv(queue), [this]() { return serve(); }, [this]() { return whenInput(); }) {}

QueueTurns::Next ReceiveQueue::serve() {
  if (!guest.isOpen()) return QueueTurns::Next::HOST;
  switch (requests.serve()) {
    case ReceiveRing::Outcome::NO_INPUT:
      return QueueTurns::Next::HOST;
    case ReceiveRing::Outcome::NO_BUFFER:
      return QueueTurns::Next::DRIVER;
    case ReceiveRing::Outcome::MORE:
      return QueueTurns::Next::MORE;
    case ReceiveRing::Outcome::BROKEN:
      return QueueTurns::Next::BROKEN;
  }
  KJ_UNREACHABLE;
}

kj::Promise<void> ReceiveQueue::whenInput() {
  return guest.whenOpen().then([this]() -> kj::Promise<void> {
    if (requests.isReplaying()) return kj::READY_NOW;
    return input.whenInput();
  });
}

}  // namespace troupe::console
