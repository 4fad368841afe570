@0xa6d3c29be1f04785;

# What a freshly started actor reads from its `setup` fd, to the end of file, before anything else.
# It is written by `troupe`, which the actor trusts, as one flat Cap'n Proto message.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct FdSlot {
  # Where an fd of the profile lives: `count` numbers from `number` on.
  name @0 :Text;
  number @1 :UInt32;
  count @2 :UInt32 = 1;
}

struct StageFilter {
  # A seccomp program (struct sock_filter[], native byte order) that the actor installs itself.
  stage @0 :Text;
  # "ready", "run", or "thread:NAME" for one that only the threads of that name install.
  program @1 :Data;
}

struct Setup {
  name @0 :Text;
  # The actor's name within its VM: "blk0", "console0", "broker".
  fds @1 :List(FdSlot);
  filters @2 :List(StageFilter);
  # Empty when the jail is off.
  config @3 :AnyPointer;
  # The actor's own configuration struct, from <actor>.capnp beside its code; null if it has none.
  mdwe @4 :Bool;
  # The actor asks the kernel, first of all, that no mapping of it ever becomes executable.
  ioUringOpcodes @5 :Data;
  # IORING_OP_…: what the actor restricts its rings to. With or without a jail.
  ioUringSqeFlags @6 :UInt8;
  # IOSQE_…: what every operation has, and no others.
  isSuccessor @7 :Bool;
  # The actor is to take the place of a process that has ended, or still plays its part: what that
  # one leaves behind is to be looked at when it is told so, and no earlier.
}
