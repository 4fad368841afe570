#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/memory.h>
#include <kj/vector.h>

#include <cstdint>

#include "devices/net/capture.h"
#include "devices/net/flight_backend.h"
#include "devices/net/net.capnp.h"
#include "devices/net/net_engine.h"
#include "devices/net/tap_queues.h"
#include "sandbox/actor_setup.h"

namespace troupe::net {

// The host's side of a network device, made of the fds its process was handed.
class HostEnd {
 public:
  // Throws (TRP-net-…) when the fds are not what `config` says. `captureEnd`: a Capture's, if
  // another process may take this one's place.
  HostEnd(NetConfig::Reader config, sandbox::ActorSetup& setup, kj::Maybe<uint64_t&> captureEnd);
  KJ_DISALLOW_COPY(HostEnd);

  // For an engine that this outlives.
  NetEngine::Host host();

 private:
  void openBackends(NetConfig::Reader config, sandbox::ActorSetup& setup,
                    kj::Maybe<uint64_t&> captureEnd);

  kj::Array<kj::Own<Backend>> backends;
  kj::Vector<kj::Own<FlightBackend>> recorded;  // before them, or in a replay in their place
  bool isTap = false;
  kj::Maybe<kj::Own<TapQueues>> tap;
  kj::Maybe<kj::Own<Capture>> capture;
};

}  // namespace troupe::net
