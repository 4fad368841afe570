@0xb7d04e92a65c18f3;

# What the actor `balloon` is told at its start (Setup.config).

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct BalloonConfig {
  statistics @0 :Bool;
  # Offers the queue of the guest's statistics.
}
