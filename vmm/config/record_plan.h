#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include "protos/config.capnp.h"

namespace troupe {

// A device that is to be recorded, and where.
struct RecordPlan {
  kj::String device;  // as `troupe status` names it: "blk0"
  kj::String path;    // of a new file
};

struct RecordPlans {
  kj::Array<RecordPlan> devices;
  uint64_t limitBytes = 0;  // of each
};

// Of the options --record DEVICE=FILE and --record-limit. `recordable`: the devices of the VM of
// which that can be done. Throws a user error for what is malformed, another device, or one given
// twice.
RecordPlans planRecords(VmConfig::Reader config, kj::ArrayPtr<const kj::String> recordable);

}  // namespace troupe
