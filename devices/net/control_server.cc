#include "devices/net/control_server.h"

#include <kj/debug.h>
#include <sys/eventfd.h>

#include <cstdlib>

namespace troupe::net {

ControlServer::ControlServer(kj::UnixEventPort& events, virtio::ActiveQueue queueParam,
                             Control& control, ControlTarget& target, virtio::DriverLink& link)
    : queue(kj::mv(queueParam)),
      control(control),
      target(target),
      link(link),
      timer(events.getTimer()),
      kick(events, queue.kick, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      serving(nullptr) {
  serving = serve().eagerlyEvaluate([](kj::Exception&& exception) {
    KJ_LOG(FATAL, "serving the control queue failed", exception);
    std::abort();
  });
}

kj::Promise<void> ControlServer::serve() {
  KJ_IF_MAYBE (chain, queue.ring->pop()) {
    // A driver that keeps adding gets its next command only after everybody else of this loop. A
    // promise that is ready at once would not do: with one always ready the loop never looks at its
    // fds, and the broker's reset would lie there unread.
    return answer(kj::mv(*chain))
        .then([this] { return timer.afterDelay(0 * kj::NANOSECONDS); })
        .then([this] { return serve(); });
  }
  if (queue.ring->broken()) {
    link.needsReset();
    return kj::READY_NOW;
  }
  queue.ring->enableNotifications();
  if (queue.ring->hasWork()) {
    return timer.afterDelay(0 * kj::NANOSECONDS).then([this] { return serve(); });
  }
  return kick.whenBecomesReadable().then([this] { return serve(); });
}

// Without a place for the answer a command is not looked at.
kj::Promise<void> ControlServer::answer(virtio::Chain&& chain) {
  if (!chain.reserveTail(sizeof(virtio::NET_OK))) {
    queue.ring->push(kj::mv(chain), 0);
    tellDriver();
    return kj::READY_NOW;
  }
  // One that processes keep dying of is refused unread.
  auto command =
      chain.isDeadly() ? Control::Command{Control::Effect::REFUSED} : control.execute(chain);
  if (chain.isDeadly()) queue.ring->countError();
  kj::Promise<bool> obeyed = command.effect == Control::Effect::REFUSED
                                 ? kj::Promise<bool>(false)
                                 : target.obey(control, command);
  return obeyed.then([this, chain = kj::mv(chain)](bool done) mutable {
    kj::byte status = done ? virtio::NET_OK : virtio::NET_ERR;
    chain.writeTail(kj::arrayPtr(&status, 1));
    // It counts only when nothing lies between it and the first writable byte (§2.7.8.2).
    uint32_t written = chain.writableBytes() == 0 ? sizeof(status) : 0;
    queue.ring->push(kj::mv(chain), written);
    tellDriver();
  });
}

void ControlServer::tellDriver() {
  // A full counter is the only failure: then the interrupt is pending anyway.
  if (queue.ring->publish()) eventfd_write(queue.call, 1);
}

}  // namespace troupe::net
