@0xd2f3ac5b81764e09;

# What the probe is told by its test, in its setup message.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe::sandbox::probe");

struct Call {
  number @0 :Int64;
  arguments @1 :List(UInt64);
  deadly @2 :Bool;
  # It will not be made: its child may share the nursery's memory, which is cheaper than a copy.
}

struct Placed {
  name @0 :Text;
  index @1 :UInt32;
}

struct Outside {
  # What lies outside the jail and must stay out of reach. Process ids are the host's.
  parent @0 :Int32;
  sibling @1 :Int32;
  tcpPort @2 :UInt16;
  abstractName @3 :Text;
  programFd @4 :Int32;
}

struct ProbeConfig {
  mode @0 :Mode;
  stage @1 :Text;
  # Mode `actor`: "start", "ready", "run" or "thread:NAME", entered as an actor does.
  filters @2 :List(Data);
  # Mode `nursery`: what each child installs before its attempt, in this order.
  calls @3 :List(Call);
  scenarios @4 :List(UInt32);
  # Mode `nursery`: these of scenarios.h as well, after the calls.
  placed @5 :List(Placed);
  # The fds that arrive on fd 3, in this order.
  closed @6 :List(Int32);
  # Numbers to close before "ready".
  outside @7 :Outside;
  hasEventLoop @8 :Bool;
  # The actor makes the fds of one.
  isMute @9 :Bool;
  # Mode `actor`: its filters let it neither read nor write fd 3. It polls that for its go, and
  # reports on fd 2.

  enum Mode {
    actor @0;
    # The process itself makes the calls, one after the other, until it dies of one.
    nursery @1;
    # It has no filter itself and makes a child for every attempt.
  }
}
