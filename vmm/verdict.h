#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include "protos/broker.capnp.h"
#include "vmm/company.h"
#include "vmm/vm_model.h"

namespace troupe {

// What the broker said about the end of the guest, copied and made harmless.
struct GuestEnd {
  EndReason reason;
  kj::String detail;
  uint16_t device;
};

// How the VM `name` ended, once something has: by its user's wish (`stopReason`, the detach key),
// by what its broker said of the guest, or by who of its company died.
VmEnd verdictOn(kj::StringPtr name, Company& company, const kj::Maybe<GuestEnd>& guestEnd,
                const kj::Maybe<kj::String>& stopReason);

}  // namespace troupe
