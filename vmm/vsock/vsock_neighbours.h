#pragma once

#include "protos/connector.capnp.h"

namespace troupe {

// Whom the socket device of one VM is connected with, where that is not the host's programs alone.
// Destroyed when the VM is.
class VsockNeighbours {
 public:
  virtual ~VsockNeighbours() noexcept(false) = default;

  // What a process of the device asks for the other ends of streams that its guest begins.
  virtual Connector::Client connector() = 0;

  // A process of the device serves, the first or one in the place of another, whose streams have
  // ended. Streams for the guest are offered to it.
  virtual void serves(Acceptor::Client device) = 0;
};

}  // namespace troupe
