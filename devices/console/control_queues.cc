#include "devices/console/control_queues.h"

namespace troupe::console {

ControlTransmitQueue::ControlTransmitQueue(kj::UnixEventPort& events, virtio::ActiveQueue queue,
                                           PortControl& control)
    : control(control),
      messages(*queue.ring, control),
      turns(
          events, kj::mv(queue), [this]() { return serve(); },
          // Every message is taken at once: nobody on the host has to be waited for.
          []() -> kj::Promise<void> { return kj::READY_NOW; }) {}

QueueTurns::Next ControlTransmitQueue::serve() {
  auto outcome = messages.serve();
  control.keep();
  switch (outcome) {
    case ControlTransmitRing::Outcome::EMPTY:
      return QueueTurns::Next::DRIVER;
    case ControlTransmitRing::Outcome::MORE:
      return QueueTurns::Next::MORE;
    case ControlTransmitRing::Outcome::BROKEN:
      return QueueTurns::Next::BROKEN;
  }
  KJ_UNREACHABLE;
}

ControlReceiveQueue::ControlReceiveQueue(kj::UnixEventPort& events, virtio::ActiveQueue queue,
                                         PortControl& control)
    : messages(*queue.ring, control),
      turns(
          events, kj::mv(queue), [this]() { return serve(); },
          [&control]() { return control.whenNext(); }, [&control]() { control.keep(); }) {}

QueueTurns::Next ControlReceiveQueue::serve() {
  switch (messages.serve()) {
    case ControlReceiveRing::Outcome::NO_MESSAGE:
      return QueueTurns::Next::HOST;
    case ControlReceiveRing::Outcome::NO_BUFFER:
      return QueueTurns::Next::DRIVER;
    case ControlReceiveRing::Outcome::MORE:
      return QueueTurns::Next::MORE;
    case ControlReceiveRing::Outcome::BROKEN:
      return QueueTurns::Next::BROKEN;
  }
  KJ_UNREACHABLE;
}

}  // namespace troupe::console
