#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

#include "protos/config.capnp.h"

namespace troupe {

constexpr uint32_t MOST_VSOCK_FORWARDS =
    63;  // numbers that devices/vsock/vsock.profile has for them

// A socket device that was checked as far as that is possible without looking at the host.
struct VsockPlan {
  struct Forward {
    uint32_t port;  // the guest's
    kj::String path;
  };
  kj::Maybe<uint64_t> cid;  // none: one that no other VM has
  // Clients connect to it and say which port they want; who listens at "PATH_N" is reached by the
  // guest as the host's port N.
  kj::Maybe<kj::String> socket;
  kj::Array<Forward> forwards;
};

// Throws a user error for the first value that does not do.
VsockPlan planVsock(VsockOptions::Reader vsock);

// Where whoever serves `port` of the host listens.
kj::String hostPortPath(kj::StringPtr socket, uint32_t port);

}  // namespace troupe
