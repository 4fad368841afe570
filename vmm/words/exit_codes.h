#pragma once

namespace troupe {

// What `troupe` exits with. Stable: scripts depend on them (docs/exit-codes.md).
enum class ExitCode : int {
  POWERED_OFF = 0,  // also: a command other than `run` and `demo` did what it was asked
  INTERNAL = 1,
  USAGE = 2,         // the command line, the configuration or a file named there is wrong
  HOST = 3,          // the host lacks something
  JAIL = 4,          // a jail could not be closed or is not what the profile says
  START = 5,         // an actor died or hung before the guest ran
  DISK_ERRORS = 6,   // `troupe disk check` found errors in the image,
  DISK_LEAKS = 7,    // or nothing but leaks
  REPLAY_DIFFERS = 8,  // `troupe replay`: the device did something else
  GUEST_RESET = 16,  // from here on: how a guest that had started came to its end
  GUEST_CRASHED = 17,
  STOPPED = 18,  // by its user: detach key, a signal, `troupe stop`
  DEVICE_LOST = 19,
  BROKER_FAILED = 20,  // or the host
  GUEST_PANICKED = 21,
};

}  // namespace troupe
