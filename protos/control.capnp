@0x9b1f64d8c37e2a05;

# What a running VM answers on its socket, NAME.sock in the run-time folder. A jailed front end ends
# the outside connection, decodes its bytes and calls the same interface on `troupe`.

using Cxx = import "/capnp/c++.capnp";
using Broker = import "broker.capnp";
$Cxx.namespace("troupe");

struct ActorStatus {
  name @0 :Text;
  kind @1 :Text;
  # "broker", "blk", "console", "rng", "serial", "vsock", "front".
  pid @2 :Int32;
  # As the host counts.
  jail @3 :Text;
  # "attested" or "off".
  restarts @4 :UInt32;
  # How many processes have taken their place before this one.
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

struct GraphFd {
  # What one name of a profile's fd table stands for in one process.
  name @0 :Text;
  # "" where the profile has none for it.
  numbers @1 :Text;
  # "17", or for a range those that are open: "1024-1027".
  kind @2 :Text;
  # That of the profile.
  found @3 :Text;
  # The kernel's word for the first of them.
  leadsTo @4 :Text;
  # Whom it is shared with, or what it is: "troupe", "blk0", "the guest's RAM", "itself".
  asked @5 :Bool;
  # Whether the configuration asks for it.
}

struct GraphProcess {
  name @0 :Text;
  kind @1 :Text;
  pid @2 :Int32;
  profile @3 :Text;
  stage @4 :Text;
  # The filter in force: "start", "ready", "run", or "none".
  memory @5 :Text;
  # What it maps of the guest's memory.
  restarts @6 :UInt32;
  fds @7 :List(GraphFd);
}

struct GraphEdge {
  from @0 :Text;
  to @1 :Text;
  # Names of processes; "troupe"; or something outside of the VM's processes: a path, "clients".
  what @2 :Text;
  # The interface that can be called, or what is shared.
  asked @3 :Bool;
}

struct VmGraph {
  name @0 :Text;
  state @1 :Text;
  jail @2 :Text;
  pid @3 :Int32;
  processes @4 :List(GraphProcess);
  edges @5 :List(GraphEdge);
  extras @6 :List(Text);
  # A sentence for each thing that the configuration did not ask for.
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
  graph @10 () -> (graph :VmGraph);
  # Looks from outside, now, at what every process holds, and compares it with what was handed out.
}
