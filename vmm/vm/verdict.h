#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include "vmm/company/company.h"
#include "vmm/control/vm_model.h"
#include "vmm/vm/guest_end.h"

namespace troupe {

// How the VM `name` ended, once something has: by its user's wish (`stopReason`, the detach key),
// by what its broker said of the guest, or by who of its company died.
VmEnd verdictOn(kj::StringPtr name, Company& company, const GuestOutcome& outcome,
                const kj::Maybe<kj::String>& stopReason);

}  // namespace troupe
