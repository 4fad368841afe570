#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include "protos/config.capnp.h"

namespace troupe {

// A VM's memory balloon.
struct BalloonPlan {
  bool stats;  // the guest is asked for statistics
};

// Words that may follow --balloon.
kj::ArrayPtr<const kj::StringPtr> balloonWords();

// --balloon [stats|on|off]; off takes away what the configuration file asks for.
void applyBalloonOption(kj::StringPtr text, VmConfig::Builder config);

kj::Maybe<BalloonPlan> planBalloon(VmConfig::Reader config);

}  // namespace troupe
