#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include "protos/broker.capnp.h"

namespace troupe {

// What the broker said about the end of the guest, copied and made harmless.
struct GuestEnd {
  EndReason reason;
  kj::String detail;
  uint16_t device;
};

// All that is known of how a guest's last boot came to its end.
struct GuestOutcome {
  kj::Maybe<GuestEnd> end;
  uint32_t crashes = 0;  // within a minute, where that is why it was not started anew
  kj::Maybe<kj::String> rebootFailure;  // a user error's text: why it could not be
};

}  // namespace troupe
