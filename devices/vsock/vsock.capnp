@0xd86f0b35c1a2e947;

# What `troupe` fills in for a vsock actor.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct VsockConfig {
  guestCid @0 :UInt64;
  forwards @1 :List(UInt32);
  # The guest's port for each fd "forward", in their order.
}
