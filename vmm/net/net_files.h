#pragma once

#include <kj/array.h>
#include <kj/io.h>

#include "vmm/config/net_plan.h"
#include "vmm/files/trial_file.h"

namespace troupe {

// What of the host's one network device is given, opened and checked.
struct NetFiles {
  // Who is behind the fds; USER: a helper that is started with the device.
  enum class Kind { TAP, STREAM, PACKETS, USER };
  Kind kind;
  kj::Array<kj::AutoCloseFd> fds;  // one for each pair of queues; none with USER
  kj::Maybe<kj::AutoCloseFd> pcap;
  uint16_t mtu;  // what the guest is told; 0: nothing
  // What the tap can do with a frame's header (TUN_F_…); 0 without headers.
  uint32_t offloads;
  kj::Maybe<kj::AutoCloseFd> helper = nullptr;  // with USER: its executable
  kj::Maybe<kj::Own<TrialFile>> pcapTrial = nullptr;
};

// passt's executable. Throws a user error that begins with `option` when there is none.
kj::AutoCloseFd openPasst(kj::StringPtr option);

// Opens what `nets` names, in their order. Throws a user error for the first that is not there, is
// somebody else's or has not the form it needs.
kj::Array<NetFiles> openNets(kj::ArrayPtr<const NetPlan> nets);

}  // namespace troupe
