@0xc3a1f5d27b9e4086;

# What `troupe gc --json` prints.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct GcReport {
  removed @0 :List(Removed);

  struct Removed {
    kind @0 :Text;
    # "socket", "lock", "lease of a cid", "lease of a MAC address", "quarantine" or "control group".
    path @1 :Text;
  }
}
