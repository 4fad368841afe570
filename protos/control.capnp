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
  isSpare @5 :Bool;
  # Waits to take the place of the one of the same name.
  isDown @6 :Bool;
  # Its process has ended, and another one begins when the guest's driver resets the device.
  isStarting @7 :Bool;
  # It is not ready to take that place yet, or, if it is no spare, has not come to serve.
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
  realm @10 :Text;
  # In lists, of a guest of a realm: that one's label, or number where it has none; else empty.
  cid @11 :UInt32;
  # In lists: its number in the realm.
  label @12 :Text;
  # In lists: what it was launched as.
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
  tag @3 :UInt16;
  # As the guest says it (virtio 1.2, section 5.5.6.4).
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
  offersStatistics @9 :Bool;
  # The guest's driver says how its memory stands, or will.
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

struct NetWish {
  # What a user wants of a network device.
  union {
    linkUp @0 :Bool;
    # Its cable is plugged in, or out.
    announce @1 :Void;
    # Its driver is asked to tell its neighbours where it is.
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
  # 0 of one that is not looked at, since it does not hold what it will.
  profile @3 :Text;
  stage @4 :Text;
  # The filter in force: "start", "ready", "run", or "none". Of one that is not looked at: "replacing"
  # (it takes its device over), "starting" (it is to be a spare) or "down".
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

struct QueueLoad {
  # What one virtqueue of a device has done since the VM began. The device's process counts, so
  # these are its words: they say nothing that matters to anybody but their reader.
  index @0 :UInt16;
  requests @1 :UInt64;
  # Chains that were returned to the driver.
  fromGuestBytes @2 :UInt64;
  toGuestBytes @3 :UInt64;
  # Of these chains, headers included.
  errors @4 :UInt64;
  # Requests answered with an error, frames dropped, rings that broke.
  inFlight @5 :UInt64;
  # Chains taken and not yet returned, at this moment.
  waitNs @6 :UInt64;
  # The time from being taken to being returned, of those chains that were timed: one of 16.
  waits @7 :List(UInt64);
  # How many of them took up to 4096 ns, up to 4 times that, and so on; the last: longer than all.
}

struct LimitUse {
  # A limit of an actor's control group that is in force.
  name @0 :Text;
  # As profiles call it: "memory_max" in bytes, "pids_max", "cpu_max" in nanoseconds.
  used @1 :UInt64;
  allowed @2 :UInt64;
  # With "cpu_max": used in all, allowed in a second.
}

struct ThreadLoad {
  name @0 :Text;
  cpuNs @1 :UInt64;
}

struct ProcessLoad {
  name @0 :Text;
  kind @1 :Text;
  # As ActorStatus; or both "troupe".
  pid @2 :Int32;
  cpuNs @3 :UInt64;
  # Of this process, all its threads, since it began.
  privateBytes @4 :UInt64;
  # Memory that nobody else has.
  sharedBytes @5 :UInt64;
  # What it maps and touched of the guest's RAM, and of other memory shared with somebody.
  restarts @6 :UInt32;
  queues @7 :List(QueueLoad);
  # Those that were ever used.
  threads @8 :List(ThreadLoad);
  # The broker's vCPUs.
  limits @9 :List(LimitUse);
  isDown @10 :Bool;
  # As ActorStatus.
}

struct VmLoad {
  name @0 :Text;
  state @1 :Text;
  uptimeMs @2 :UInt64;
  monotonicNs @3 :UInt64;
  # When this was looked at, by the host's CLOCK_MONOTONIC.
  cpus @4 :UInt32;
  memoryBytes @5 :UInt64;
  reboots @6 :UInt32;
  lastEvent @7 :UInt64;
  # The sequence number of the last event; 0: none yet.
  processes @8 :List(ProcessLoad);
}

struct VmEvent {
  # Something that happened to a VM. Once it stands there it is not changed any more.
  sequence @0 :UInt64;
  # 1 is the first, and none is left out.
  monotonicNs @1 :UInt64;
  # When, by the host's CLOCK_MONOTONIC.
  union {
    started @2 :Void;
    # The guest has begun to run.
    deviceDied :group {
      device @3 :Text;
      pid @4 :Int32;
      cause @5 :Text;
      # "was killed by signal 9 (Killed)"
      # or "hung (it is stopped) and was killed"
      isReplaced @6 :Bool;
      # Another process is to take its place.
      staysDown @26 :Bool;
      # It has none until its driver resets it. With neither this ends the VM.
    }
    deviceReplaced :group {
      device @7 :Text;
      pid @8 :Int32;
      # Of the new process, which serves.
      restarts @9 :UInt32;
    }
    refusedSyscall :group {
      # An actor was ended by its filter.
      actor @10 :Text;
      pid @11 :Int32;
      stage @12 :Text;
      call @13 :Text;
    }
    requestPutAside :group {
      # Requests that two processes in a row died of were answered with an error.
      device @27 :Text;
      detail @28 :Text;
      # How many, and where their bytes are, or why nowhere.
    }
    guestPanicked :group {
      detail @14 :Text;
    }
    guestCrashed :group {
      detail @15 :Text;
    }
    paused @16 :Void;
    resumed @17 :Void;
    reset :group {
      # The guest was started anew.
      cause @18 :Text;
      # "asked", "guest", "crash" or "panic"
      boot @19 :UInt32;
      # How many times it was.
    }
    balloonChanged :group {
      guestBytes @20 :UInt64;
      # What the guest is to be left of its RAM.
    }
    resized :group {
      disk @21 :Text;
      bytes @22 :UInt64;
    }
    ended :group {
      exitCode @23 :UInt8;
      # What `troupe` exits with.
      cause @24 :Text;
      # "powered-off", "guest-reset", "guest-crashed", "guest-panicked", "stopped", "device-lost",
      # "broker-failed"
      message @25 :Text;
      # What its user is told; "" when the guest powered off.
    }
  }
}

interface EventReader {
  # One who reads the events of a VM, at its own pace: nobody waits for it.
  next @0 (wait :Bool) -> (events :List(VmEvent), lost :UInt64, isEnd :Bool);
  # Those that follow what was read last, at most 64; with `wait` returns when there is one. `lost`:
  # how many before them are not kept any more. `isEnd`: no more will come. One call at a time.
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
  replaceDevice @14 (device :Text, binary :Text, profilePath :Text, profile :Data,
                     mayBeLooser :Bool) -> ();
  # Another process takes the place of the one of this device, and the guest does not notice. `binary`:
  # the absolute path of the program, or empty for that of before. `profile`: the text of another
  # profile for it, read from `profilePath`; empty for that of before. It may allow no more than the
  # one in force, unless `mayBeLooser`. Returns when it serves.
  graph @10 () -> (graph :VmGraph);
  # Looks from outside, now, at what every process holds, and compares it with what was handed out.
  load @11 () -> (load :VmLoad);
  # What every process uses and every queue has done. Costs no process but `troupe` anything; whoever
  # asks more than ten times a second is told the same again.
  events @12 (after :UInt64) -> (reader :EventReader);
  # From the first event kept with a sequence number above `after`. At most eight readers.
  net @13 (device :Text, wish :NetWish) -> (device :Text);
  # Has it done and tells the driver. `device` is "net0", …; empty: the only one. Which it was is
  # the answer.
}
