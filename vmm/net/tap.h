#pragma once

#include <kj/array.h>
#include <kj/io.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe {

// A tap's queues: each fd moves frames, each frame behind a struct virtio_net_hdr_v1 of 12 bytes.
struct Tap {
  kj::Array<kj::AutoCloseFd> queues;
  uint32_t mtu;
  uint32_t offloads;  // TUN_F_…: those it can do; none of them is on yet
};

// Opens `queues` queues of the tap `name`, which has to be there: `troupe` makes no interfaces.
// Throws a user error that begins with `option`.
Tap openTap(kj::StringPtr option, kj::StringPtr name, uint16_t queues);

// The first of the taps `prefix`0, `prefix`1, … that nobody uses, with one queue. Throws as
// openTap() does when there is none.
Tap openFreeTap(kj::StringPtr option, kj::StringPtr prefix);

// A new tap with one queue that is a port of `bridge` for as long as it is open. Throws a user
// error when there is no such bridge or this process may not.
Tap makeBridgedTap(kj::StringPtr option, kj::StringPtr bridge);

// The name of the bridge whose port this tap is; none when it is nobody's.
kj::Maybe<kj::String> bridgeOf(const Tap& tap);

// The tap that somebody else opened; none when the first fd is no tap's at all.
kj::Maybe<Tap> adoptTap(kj::StringPtr option, kj::ArrayPtr<const int> fds);

}  // namespace troupe
