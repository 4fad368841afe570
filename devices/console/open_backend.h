#pragma once

#include <kj/async-unix.h>

#include "devices/console/backend.h"
#include "devices/console/console.capnp.h"
#include "sandbox/actor_setup.h"

namespace troupe::console {

// What a console actor does before anything else: signals that a terminal, a closed pipe or a file
// size limit sends become errors of the system call, and threads share one heap.
void prepareProcess();

// The back end of `port`, on the fds that `setup` has for it. A user who leaves the terminal ends
// the process with DETACH_STATUS. The three borrowed things outlive the result.
kj::Own<Backend> openBackend(kj::UnixEventPort& events, Line& line, sandbox::ActorSetup& setup,
                             ConsolePort::Reader port);

}  // namespace troupe::console
