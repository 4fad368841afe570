#include "devices/virtio/loop_pulse.h"

#include <sys/epoll.h>

namespace troupe::virtio {
namespace {

Pulse* loop = nullptr;

}  // namespace

void showLoop(Pulse& pulse) {
  loop = &pulse;
}

extern "C" {

int __real_epoll_wait(int epoll, epoll_event* events, int count, int timeout);

int __wrap_epoll_wait(int epoll, epoll_event* events, int count, int timeout) {
  if (loop == nullptr) return __real_epoll_wait(epoll, events, count, timeout);
  loop->become(Sign::State::WAITS);
  int found = __real_epoll_wait(epoll, events, count, timeout);
  loop->become(Sign::State::WORKS);
  return found;
}

}  // extern "C"

}  // namespace troupe::virtio
