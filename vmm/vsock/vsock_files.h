#pragma once

#include <kj/array.h>
#include <kj/memory.h>

#include "vmm/actors/actor.h"
#include "vmm/config/vsock_plan.h"
#include "vmm/files/endpoint_files.h"
#include "vmm/vsock/cid_lease.h"

namespace troupe {

// What a socket device is given, opened. Its sockets' files go with it.
struct VsockFiles {
  uint64_t cid;
  kj::Maybe<kj::Own<CidLease>> lease;  // of a cid that nobody else of this user is to have
  kj::Maybe<kj::Own<ListeningSocket>> socket;
  kj::Array<kj::Own<ListeningSocket>> forwards;  // in the order of the plan
};

VsockFiles openVsock(const VsockPlan& plan);

// That of a guest in a realm, which gives out its own cids and stands behind its connector.
VsockFiles openRealmVsock(uint64_t cid);

}  // namespace troupe
