@0xf017469222329c5d;

# Between `troupe replay` and the jailed process that reads a recording. That process plays the
# broker of the device that is replayed, too; `troupe` starts both and sees what becomes of them.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct ReplayRequest {
  # Setup.config of the process.
  path @0 :Text;
  # As its user said it, for messages.
  show @1 :Bool;
  # Tell what is in it, and replay nothing.
  bytes @2 :UInt64;
  # Of the file.
}

interface ReplayHost {
  # `troupe`, by the process's one pipe. It believes nothing of what it is told.

  show @0 (lines :List(Text)) -> ();
  # Some events more, for its user.

  prepare @1 (plan :ReplayPlan) -> ();
  # Once. Gives the memories that the process holds already, by fd, their sizes.

  launch @2 (config :AnyPointer) -> (readOnly :Bool);
  # Behind prepare(), once. Starts the device, of whose pipe the process holds the other end.
  # `readOnly`: the device may only read RAM.

  look @3 () -> (state :DeviceState);
  # What the device's process is doing. `resting` only if nothing comes of it any more unless
  # somebody does something: all of its threads sleep, none of them for a time.

  finish @4 (outcome :ReplayOutcome) -> ();
  # Comes last.

  refuse @5 (why :Text) -> ();
  # In place of finish(): it is no recording.
}

enum DeviceState {
  busy @0;
  resting @1;
  ended @2;
}

struct ReplayPlan {
  kind @0 :Text;
  flightBytes @1 :UInt64;
  # Of what the device records; a whole number of pages, like those that follow.
  answersBytes @2 :UInt64;
  ramBytes @3 :UInt64;
  diskBytes @4 :UInt64;
  # Of an empty disk; 0 for none.
  outputs @5 :UInt16;
  # Files to write to that keep nothing.
  connector @6 :Bool;
  # Somebody to ask, who does not answer.
}

struct ReplayOutcome {
  device @0 :Text;
  events @1 :UInt64;
  chains @2 :UInt64;
  unfollowed @3 :Text;
  # Why it ended before the recording did; null when it did not.
  isCut @4 :Bool;
  # The file ends in the middle of an event.
  union {
    same @5 :Void;
    differs :group {
      event @6 :UInt64;
      what @7 :Text;
      how @8 :Text;
      # Null: the device did not do it. `troupe` knows more of that.
    }
  }
}
