@0xa31c5d7e90b2f648;

# What the actor `rng` is told at its start (Setup.config).

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct RngConfig {
  # What the guest may draw in a second, and at once after a rest. 0 a second is without limit.
  bytesPerSecond @0 :UInt64;
  burstBytes @1 :UInt64;
  requestsPerSecond @2 :UInt64;
  burstRequests @3 :UInt64;
}
