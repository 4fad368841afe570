@0xd0c1b6a85b0e7a34;

# Between the broker and one device process. The device's end of the pipe exports a `Device` as its
# bootstrap capability; the broker's end exports nothing. Each side treats the other as hostile.
#
# Order of calls: describe, attach, then any number of (activate, reset). writeConfig and hostEvent
# may come at any time after attach. The broker never waits for an answer on a vCPU thread.
#
# A successor is described and attached while the process before still serves (a spare), or is dead
# already. Once that one has ended, with all it had asked the kernel for, takeOver comes, once, and
# then the same calls as to the first process; its first activate may be `resumed`. One that serves
# and is to be replaced by its user's wish is told so first: handOver.

using Cxx = import "/capnp/c++.capnp";
using Handle = import "handle.capnp".Handle;
$Cxx.namespace("troupe");

struct DeviceInfo {
  # What a device is, fixed for the life of its process.

  deviceType @0 :UInt16;
  # Virtio device id (§5): 2 block, 3 console, 4 entropy, 5 balloon.

  features @1 :UInt64;
  # Device-specific bits and the ring features the device offers (INDIRECT_DESC, EVENT_IDX). The
  # transport adds what is its own (VERSION_1) and drops what it cannot carry.

  queueSizes @2 :List(UInt16);
  # One entry per virtqueue: the largest size it accepts, a power of two from 2 to 32768. The broker
  # refuses more than 31 queues: a kick and a call fd for each must fit one message.

  config @3 :Data;
  # Initial content of the device-specific configuration space (§4.1.4.6), at most 4096 bytes.

  configWriteMask @4 :Data;
  # As long as `config`; a set bit may be changed by the driver. The broker applies a write to its
  # own copy at once, within this mask, and then calls writeConfig.

  resetDeadlineMs @5 :UInt32 = 500;
  # How long reset() may take before the broker reports the device hung; 1 to 10000.
}

struct RamRegion {
  # A piece of guest RAM: `size` bytes of the RAM file from `fileOffset` on, seen by the guest at
  # `guestAddress`. All three are multiples of 4096; regions are sorted and do not overlap.
  guestAddress @0 :UInt64;
  fileOffset @1 :UInt64;
  size @2 :UInt64;
}

struct MemoryRange {
  # Addresses as the guest uses them: whole pages of 4096 bytes, inside one piece of RAM.
  guestAddress @0 :UInt64;
  size @1 :UInt64;
}

struct GuestRam {
  file @0 :Handle;
  # A memfd sealed against growing, shrinking and further seals. Null: this device gets no memory,
  # and `regions` is empty.
  regions @1 :List(RamRegion);
  # All that the device maps, for good: all of RAM, or the ranges it was granted.
  readOnly @2 :Bool;
  # `file` was opened for reading alone: the kernel lets nobody write through it.
}

struct QueueEvents {
  # The two eventfds (non-blocking) of one virtqueue, made once and kept for the life of the device
  # process.
  kick @0 :Handle;
  # Signalled by KVM when the driver notifies the queue (§4.1.5.2). The device reads it. A kick from
  # before DRIVER_OK may be left in it; one that came with DRIVER_OK may have been lost: so on
  # activate the device looks at the ring once without waiting for a kick.
  call @1 :Handle;
  # Written by the device to interrupt the driver (§4.1.5.3, used buffer notification).
}

struct QueueLayout {
  # One queue as the driver enabled it (§4.1.4.3), latched by the transport at DRIVER_OK. Addresses
  # are guest-physical and unchecked: whether they lie in RAM is for the device to decide.
  index @0 :UInt16;
  size @1 :UInt16;
  descriptorTable @2 :UInt64;
  availableRing @3 :UInt64;
  usedRing @4 :UInt64;
  returned @5 :UInt16;
  # Of a device that may not write guest RAM, when it is resumed: the index that the broker has
  # stored into the used ring, which says how many chains are the driver's again.
}

struct ReturnedChain {
  # One element of a used ring (§2.7.8).
  head @0 :UInt16;
  written @1 :UInt32;
}

struct BalloonStatistic {
  # What the guest's driver says of its memory (§5.5.6.3).
  tag @0 :UInt16;
  value @1 :UInt64;
}

struct BalloonReport {
  targetPages @0 :UInt32;
  # Pages of 4096 bytes the balloon is to hold, and does as the driver says.
  actualPages @1 :UInt32;
  features @2 :UInt64;
  # Negotiated with the driver; 0 without one.
  givenBackBytes @3 :UInt64;
  # What the host got back since the process began, by ballooning and by free pages alike. A page
  # that came back several times counts each time.
  freePageBytes @4 :UInt64;
  # Of these what the guest reported or hinted to be free.
  statistics @5 :List(BalloonStatistic);
  # At most 64, as the driver said them last; none when that made no sense.
  hasStatistics @6 :Bool;
  # It has said some.
  statisticsAgeMs @7 :UInt64;
}

struct DeviceReport {
  # What a device tells of itself while it serves.
  union {
    nothing @0 :Void;
    balloon @1 :BalloonReport;
  }
}

struct HostEvent {
  # Something that happened on the host and concerns one device.
  union {
    consoleSize :group {
      # The terminal behind a console has this many character cells (§5.3.4).
      columns @0 :UInt16;
      rows @1 :UInt16;
    }
    unused @2 :Void;
    diskSize @3 :UInt64;
    # A disk has grown to this many bytes, or is to if it is an image. The device looks for itself
    # whether it has them; it answers when the driver has been told, and throws if it cannot be.
    netLink @4 :Bool;
    # The cable of a network device is plugged in, or out. Out, no frame passes in either direction;
    # when it is in again the driver is asked to announce itself.
    netAnnounce @5 :Void;
    # The driver of a network device is asked to announce itself to its neighbours (§5.1.6.5.4).
    balloonTarget @6 :UInt32;
    # How many pages of 4096 bytes a balloon is to hold from now on.
    balloonHint @7 :Void;
    # A balloon asks its driver which pages are free, once, and gives these back.
  }
}

interface DeviceHost {
  # The broker, as one device sees it.

  configChanged @0 (offset :UInt32, data :Data) -> ();
  # Replaces bytes of the broker's copy of the configuration space, advances its generation (§2.5)
  # and raises a configuration change notification. Refused when it would pass the end.

  needsReset @1 () -> ();
  # The driver broke the rules: sets DEVICE_NEEDS_RESET (§2.1.2).

  returnChains @2 (queue :UInt16, chains :List(ReturnedChain), giveBack :List(MemoryRange))
      -> (givenBack :UInt64);
  # For a device that may not write guest RAM (GuestRam.readOnly). First gives the pages of
  # `giveBack` back to the host: they read as zeroes and take no memory until somebody writes them
  # again. Then puts `chains` into the used ring of `queue`, where the driver placed it, and advances
  # its index; the interrupt is the device's to raise. `givenBack`: bytes the host took.
  #
  # Ranges are in ascending order, do not overlap, and have 64 MiB at most together; there are at
  # most 2048, and at most as many chains as the queue has entries. Refused as a whole, and nothing
  # is done, when one of this does not hold, when the queue is not active, or when there are ranges
  # and the device may not give any back.
}

interface Device {
  describe @0 () -> (info :DeviceInfo);

  attach @1 (memory :GuestRam, queues :List(QueueEvents), host :DeviceHost, place :UInt8) -> ();
  # Hands over all the device will ever hold, once: one `QueueEvents` per entry of
  # `DeviceInfo.queueSizes`. It returns when the memory is mapped and the process has narrowed its
  # own system calls to its serving filter: the answer is the device's `ready`. `place`: 0 or 1, and
  # not that of another process of the device that lives: where it shows its vital signs.

  activate @2 (features :UInt64, queues :List(QueueLayout), number :UInt64, resumed :Bool,
               ownFault :Bool) -> ();
  # DRIVER_OK: `features` is what was negotiated; `queues` holds the enabled ones only. A ring that is
  # not wholly inside RAM is the guest's mistake: the device calls needsReset() and stays inactive.
  #
  # `number` counts the device's activations from 1 on. `resumed`: the same was asked of a process
  # before this one, which has died, and the driver knows nothing of it: the device goes on with what
  # that one had in flight by its journal, or from the start if it had not come so far. `ownFault`:
  # that process died of itself. A journal that makes no sense ends with needsReset().

  reset @3 () -> ();
  # Returns once the device touches neither ring nor buffer any more and every request it had sent to
  # the host has ended. Harmless when not active.

  writeConfig @4 (offset :UInt32, data :Data) -> ();
  # The driver wrote these bytes; they are already masked and in the broker's copy.

  hostEvent @5 (event :HostEvent) -> ();
  # Returns when it has been dealt with. An event the device does not know is ignored.

  report @6 () -> (report :DeviceReport);
  # A balloon asks its driver for new statistics first, and waits half a second at most for them.

  handOver @7 () -> ();
  # As reset, but its driver knows nothing of it: another process goes on with what is in flight, as
  # the journals have it. Everything it needs to know stands in the memory kept for it once this
  # returns. No other call comes after it, and when the pipe closes the process ends at once.

  takeOver @8 () -> (config :Data);
  # To a successor: the process before has ended. What it kept, and what lies on the host, is this
  # process's from now on. Returns when all of that has been looked at, and saved where it has to be,
  # which may take as long as the disk does; it cannot be called back. `config`: the configuration
  # space, as DeviceInfo has it, now. A process that finds something it cannot go on with says so
  # and ends.
}
