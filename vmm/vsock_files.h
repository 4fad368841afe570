#pragma once

#include <kj/array.h>
#include <kj/memory.h>

#include "vmm/actor.h"
#include "vmm/cid_lease.h"
#include "vmm/endpoint_files.h"
#include "vmm/vsock_plan.h"

namespace troupe {

// What a socket device is given, opened. Its sockets' files go with it.
struct VsockFiles {
  kj::Own<CidLease> cid;
  kj::Maybe<kj::Own<ListeningSocket>> socket;
  kj::Array<kj::Own<ListeningSocket>> forwards;  // in the order of the plan
};

VsockFiles openVsock(const VsockPlan& plan);

}  // namespace troupe
