@0xd7a31c5e90b8f264;

# What `troupe doctor --json` prints.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct DoctorReport {
  findings @0 :List(Finding);

  struct Finding {
    name @0 :Text;
    state @1 :Text;
    # "ok", "MISSING" (no VM can run), "reduced" (one layer or gain less).
    found @2 :Text;
    see @3 :Text;
    # The command that shows it.
    mend @4 :Text;
    # The command that mends it; "" when all is well.
  }
}
