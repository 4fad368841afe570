@0x9b1f64d8c37e2a05;

# What a running VM answers on its socket, NAME.sock in the run-time folder. A jailed front end ends
# the outside connection, decodes its bytes and calls the same interface on `troupe`.

using Cxx = import "/capnp/c++.capnp";
using Broker = import "broker.capnp";
$Cxx.namespace("troupe");

struct ActorStatus {
  name @0 :Text;
  kind @1 :Text;
  # "broker", "blk", "console", "rng", "serial", "front".
  pid @2 :Int32;
  # As the host counts.
  jail @3 :Text;
  # "attested" or "off".
}

struct VmStatus {
  name @0 :Text;
  pid @1 :Int32;
  state @2 :Text;
  # "starting", "running", "paused", "restarting", "stopping" or "ending".
  uptimeMs @3 :UInt64;
  cpus @4 :UInt32;
  memoryBytes @5 :UInt64;
  actors @6 :List(ActorStatus);
  filters @7 :Text;
  # How the actors' filters were attested; empty with the jail off.
  missing @8 :List(Text);
  # What the jails lack on this host because their profiles let it be missing.
  reboots @9 :UInt32;
  # How often the guest was started anew.
}

struct JailRow {
  # One thing that was looked at.
  layer @0 :Text;
  found @1 :Text;
  agrees @2 :Bool;
  # With the profile.
}

struct ActorJail {
  name @0 :Text;
  pid @1 :Int32;
  profile @2 :Text;
  # The file it was compiled from.
  rows @3 :List(JailRow);
  differences @4 :List(Text);
  # A sentence for each; empty when the jail is as the profile says.
}

struct VmJails {
  name @0 :Text;
  state @1 :Text;
  jail @2 :Text;
  # "on", "off" or, while `troupe policy learn` watches, "only reports".
  filters @3 :Text;
  # How they were attested before the guest ran: "by their instructions" or "by mode and count (…)".
  actors @4 :List(ActorJail);
}

struct MemoryStatistic {
  name @0 :Text;
  # "free", "disk-caches", …; "tag-N" for one that has no name here.
  value @1 :UInt64;
  isBytes @2 :Bool;
  # Not a count.
}

struct BalloonStatus {
  memoryBytes @0 :UInt64;
  # The guest's RAM. What a balloon holds is not the guest's for as long.
  targetBytes @1 :UInt64;
  # What the balloon is to hold.
  actualBytes @2 :UInt64;
  # What it holds, as the guest's driver says.
  hasDriver @3 :Bool;
  # The guest has one.
  givenBackBytes @4 :UInt64;
  # What the host got back since the VM began. Pages that came back several times count each time.
  freePageBytes @5 :UInt64;
  # Of these what the guest reported as free, or was asked for.
  hasStatistics @6 :Bool;
  statistics @7 :List(MemoryStatistic);
  statisticsAgeMs @8 :UInt64;
}

struct BalloonRequest {
  union {
    look @0 :Void;
    guestBytes @1 :UInt64;
    # Leaves the guest this much of its RAM; the balloon is to hold the rest.
    reclaim @2 :Void;
    # Asks the guest once which pages are free, and gives these back to the host.
  }
}

interface Vm {
  status @0 () -> (status :VmStatus);
  stop @1 (force :Bool, timeoutMs :UInt32) -> ();
  # With `force` ends the VM at once. Else asks the guest by the power button, ends it when it has not
  # powered off in time, and returns only by the connection's end.
  powerButton @2 () -> ();
  counters @3 () -> (counters :Broker.Counters);
  inspectJails @4 () -> (jails :VmJails);
  # Looks at every actor's jail from outside, now.
  resizeDisk @5 (disk :Text, bytes :UInt64) -> (bytes :UInt64);
  # Makes the disk with this id larger and tells the guest. `bytes`: what it is to have, 0 for as many
  # as its block device has now.
  balloon @6 (request :BalloonRequest) -> (status :BalloonStatus);
  # Does as asked and tells how the balloon stands. What the guest makes of it takes its time, and
  # is not waited for.
  pause @7 () -> ();
  resume @8 () -> ();
  reset @9 () -> ();
  # These return when it is so.
}
