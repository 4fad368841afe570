#pragma once

#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/string.h>

#include "vmm/control/control_client.h"

namespace troupe {

// A client of a running VM that stays for longer than one connection may: those end after an hour,
// or with the front end that decodes them, and another is made.
class LastingClient {
 public:
  // Throws a user error if no VM of that name runs.
  LastingClient(kj::AsyncIoContext& io, kj::StringPtr name);
  KJ_DISALLOW_COPY(LastingClient);

  // Calls `use` with a connection, and again with a new one when that breaks. False when the VM is
  // gone. Other failures pass.
  bool tryWith(kj::FunctionParam<void(ControlClient&)> use);

 private:
  bool connect();

  kj::AsyncIoContext& io;
  kj::String name;
  kj::Own<ControlClient> client;
};

}  // namespace troupe
