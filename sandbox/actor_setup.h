#pragma once

#include <capnp/message.h>
#include <kj/array.h>
#include <kj/common.h>
#include <kj/io.h>
#include <kj/string.h>

#include "protos/setup.capnp.h"

namespace troupe::sandbox {

// fd numbers every actor has, whatever its profile adds.
constexpr int LOG_FD = 2;    // a pipe to `troupe`: what the actor prints, bounded by its reader
constexpr int RPC_FD = 3;    // the actor's one RPC pipe
constexpr int SETUP_FD = 4;  // the setup message; closed once read

// What a started actor was handed, and the last steps of its own jail. Main thread only.
class ActorSetup {
 public:
  // Reads and closes SETUP_FD. Throws if it holds no sound message.
  ActorSetup();

  kj::StringPtr name() const;

  template <typename Config>
  typename Config::Reader config() {
    return root().getConfig().template getAs<Config>();
  }

  // The number of the fd `name` (or of the index-th of an fd range). Throws when the profile has no
  // such fd. The number is reserved: whether something is open there depends on the call order.
  int fd(kj::StringPtr name, uint index = 0) const;
  uint fdCount(kj::StringPtr name) const;

  // Duplicates `fd` to the number the profile gives `name`, close-on-exec, and returns that number.
  int place(kj::StringPtr name, uint index, int fd) const;

  // Narrows this process to the filter of `stage` ("ready", "run"), or this thread to
  // "thread:NAME". Does nothing where the setup has no such filter (jail off). Cannot be undone.
  void enter(kj::StringPtr stage) const;

 private:
  Setup::Reader root() const;
  kj::Array<capnp::word> words;
  kj::Own<capnp::MessageReader> message;
};

}  // namespace troupe::sandbox
