@0xb6f13c8a2d5e9047;

# What one device process saw, in the order in which it saw it: a file of messages in Cap'n Proto's
# stream framing, a Recording and then any number of FlightEvents of one segment each. Written by
# `troupe run --record`, read by `troupe replay` (docs/recording.md). It holds what the guest and the
# host gave to the device, and a device process that was taken over wrote what it liked: whoever
# reads one takes it for a stranger's.

using Cxx = import "/capnp/c++.capnp";
using Device = import "device.capnp";
$Cxx.namespace("troupe");

struct Recording {
  # The first message, by `troupe`.
  const currentVersion :UInt16 = 1;

  version @0 :UInt16;
  device @1 :Text;
  # "blk0"
  kind @2 :Text;
  # "blk"
  program @3 :Text;
  # What its executable is started as: "troupe-blk".
  config @4 :AnyPointer;
  # What the process was told at its start (Setup.config).
}

struct SeenDescriptor {
  # One descriptor as it was read (§2.7.5).
  address @0 :UInt64;
  length @1 :UInt32;
  flags @2 :UInt16;
  next @3 :UInt16;
  index @4 :UInt32;
  # Where it stood: in the queue's table, or in the indirect table that the last descriptor before
  # it with that flag names.
  inIndirect @5 :Bool;
}

struct TakenChain {
  queue @0 :UInt16;
  number @1 :UInt64;
  # Counts this queue's chains from 1 on since the process began.
  head @2 :UInt16;
  descriptors @3 :List(SeenDescriptor);
  readable @4 :Data;
  # What its readable buffers held then, up to a limit.
  readableBytes @5 :UInt64;
  # How much that is in all.
  tail @6 :Data;
  # The last bytes of its writable buffers, before the device wrote there.
  refused @7 :Bool;
  # It broke the ring; the device has not got it.
  leftBehind @8 :Bool;
  # By the process before this one.
  isIndex @9 :Bool;
  # Refused for its available index: there is no head, and no descriptor was read.
}

struct AnsweredChain {
  queue @0 :UInt16;
  number @1 :UInt64;
  head @2 :UInt16;
  written @3 :UInt32;
  # The used length (§2.7.8).
  bytes @4 :Data;
  # That many of its first writable bytes, up to a limit.
  tail @5 :Data;
  # Its last writable bytes, as many as TakenChain.tail has.
}

struct HostCall {
  # What a device had its host do for one chain, and what came of it. With `number` 0 it is for none
  # of them: what a device sends, is sent or is told by its host beside its chains, in the order of
  # one source (`queue` tells them apart). Of these, some the host does of itself: turn, input, news,
  # tick, connected, gone, gaveUp.
  enum Kind {
    read @0;
    write @1;
    flush @2;
    discard @3;
    zero @4;
    zeroKeepingPlace @5;
    random @6;
    input @7;
    output @8;
    turn @9;
    # The device looks at its rings and its host once more, up to the next turn.
    news @10;
    # A socket has some; `offset`: the stream's slot, `result`: 1 when nobody is at its other end.
    tick @11;
    # A second is over.
    connected @12;
    # A connector has answered: `offset` as above, `result` 0 or -errno.
    accept @13;
    # A client is taken in; `offset` is the guest's port, or 0 where it has yet to say which.
    endSending @14;
    endReceiving @15;
    # Half a socket is closed.
    gone @16;
    # The host's end, for good.
    gaveUp @17;
    # A frame waited too long for buffers.
    giveBack @18;
    # The broker is to give `bytes` of guest RAM to the host and to return chains; `result`: how many
    # it gave.
    setting @19;
    # A tap is told `offset`.
    connect @20;
    # A connector is asked for the port in the low half of `offset`, of the cid in its high half.
  }
  queue @0 :UInt16;
  number @1 :UInt64;
  # Of the chain.
  kind @2 :Kind;
  offset @3 :UInt64;
  bytes @4 :UInt64;
  # Asked for.
  durable @5 :Bool;
  # A write that is stable before it is answered.
  allocating @6 :Bool;
  # The file system is asked to do it.
  result @7 :Int64;
  # Bytes, or -errno.
  sum @8 :UInt64;
  # Of the bytes that went to the host, to tell them from others.
  data @9 :Data;
  # What came from the host, with `number` 0: with another it is in the chain's answer.
}

struct FlightEvent {
  nanoseconds @0 :UInt64;
  # Of the host's monotonic clock.
  union {
    began @1 :Device.DeviceInfo;
    # A process: what the device is.
    attached @2 :List(Device.RamRegion);
    activated :group {
      features @3 :UInt64;
      queues @4 :List(Device.QueueLayout);
      number @5 :UInt64;
      resumed @6 :Bool;
      ownFault @7 :Bool;
    }
    reset @8 :Void;
    configWritten :group {
      offset @9 :UInt32;
      data @10 :Data;
    }
    hostEvent @11 :Device.HostEvent;
    taken @12 :TakenChain;
    called @13 :HostCall;
    answered @14 :AnsweredChain;
    configChanged :group {
      changedOffset @15 :UInt32;
      changedData @16 :Data;
    }
    needsReset @17 :Void;
    ended @18 :End;
    reportAsked @19 :Void;
  }

  enum End {
    vm @0;
    # It ended, and with it the recording.
    limit @1;
    # The recording has reached its limit.
    file @2;
    # The file could not be written any more.
  }
}
