#include "devices/console/transmit_queue.h"

namespace troupe::console {

TransmitQueue::TransmitQueue(kj::UnixEventPort& events, virtio::ActiveQueue queue, OutputLog& log,
                             uint64_t logged)
    : requests(*queue.ring, log, logged),
      turns(
          events, kj::mv(queue), [this]() { return serve(); },
          [&log]() { return log.whenClear(); }) {}

QueueTurns::Next TransmitQueue::serve() {
  switch (requests.serve()) {
    case TransmitRing::Outcome::EMPTY:
      return QueueTurns::Next::DRIVER;
    case TransmitRing::Outcome::CONGESTED:
      return QueueTurns::Next::HOST;
    case TransmitRing::Outcome::MORE:
      return QueueTurns::Next::MORE;
    case TransmitRing::Outcome::BROKEN:
      return QueueTurns::Next::BROKEN;
  }
  KJ_UNREACHABLE;
}

}  // namespace troupe::console
