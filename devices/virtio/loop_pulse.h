#pragma once

#include "devices/virtio/pulse.h"

namespace troupe::virtio {

// Has this thread's event loop show in `pulse`, which must outlive the process's last turn of it,
// when it waits for events and when it works. Of a process that has one event loop; to be called
// once.
//
// KJ has no place for this. So the linker has its call of epoll_wait() come here first.
void showLoop(Pulse& pulse);

}  // namespace troupe::virtio
