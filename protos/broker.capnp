@0xe2f8a90c4b7d6153;

# Between `troupe` and the broker of one VM. The broker's end of the pipe exports a `Broker` as its
# bootstrap capability. Calls are made in the order create, addDevice…, load, prepare, run; all of
# them can be sent at once and awaited together. The others come after run. A refusal is an exception
# whose text starts with its code (TRP-boot-002: …); the code is looked up in docs/errors.md.

using Cxx = import "/capnp/c++.capnp";
using Handle = import "handle.capnp".Handle;
using Device = import "device.capnp";
$Cxx.namespace("troupe");

struct MachineConfig {
  cpus @0 :UInt32;
  # 1 to 255.
  memoryBytes @1 :UInt64;
  # A multiple of 2 MiB. RAM above 3 GiB continues at 4 GiB.
  cpuMask @2 :List(Text);
  # CPU features to hide from the guest, by the names /proc/cpuinfo gives them.
  hasSerial @3 :Bool;
  # Whether bytes of the 16550 go to the fd "serial" the broker was started with.
  deviceCount @4 :UInt16;
  # How many addDevice calls will come.
  regions @5 :List(Device.MemoryRange);
  # Where RAM lies instead, memoryBytes in all: whole pages in ascending order, of which the first
  # begins at 0 and has 2 MiB at least; none meets the devices' addresses. Empty: as said there.
  hostMemory @6 :List(HostMemory);
  # Of the fds "host_memory" the broker was started with, in their order, at most eight: what the
  # guest sees of each. They are reserved in its memory map, and no device reaches them.
}

struct HostMemory {
  guestAddress @0 :UInt64;
  size @1 :UInt64;
  fileOffset @2 :UInt64;
  # All three in bytes, of whole pages.
}

enum KernelKind {
  any @0;
  # Whatever the file says it is.
  linux @1;
  # A bzImage or an ELF file.
  zircon @2;
  # A Zircon boot image.
}

struct BootFiles {
  # What a guest boots from.
  kernel @0 :Handle;
  initrd @1 :Handle;
  # Null: none.
  commandLine @2 :Text;
  kind @3 :KernelKind;
  deviceTree @4 :Handle;
  # For a Linux kernel; null: none.
}

enum EndReason {
  poweredOff @0;
  # The guest asked for ACPI S5.
  reset @1;
  # The guest asked for a reset: the ACPI reset register or the i8042.
  crashed @2;
  # Triple fault, or a KVM exit that no guest can go on from; `detail` says which.
  deviceLost @3;
  # The pipe to a device broke, or it let its reset deadline pass; `detail` names it.
  failed @4;
  # The broker or the host failed; `detail` says how.
  panicked @5;
  # The guest's kernel said so, by pvpanic.
  hostMemoryLost @6;
  # Memory of the host's could not be had any more when the guest came to it.
}

struct End {
  reason @0 :EndReason;
  detail @1 :Text;
  device @2 :UInt16;
  # With deviceLost: the index of the device, in the order of addDevice.
  boot @3 :UInt32;
  # Which boot of the guest ended: 0 is that of run(), and each reboot() begins another.
}

struct Counters {
  # What the broker counted since the VM started.
  exits @0 :UInt64;
  # KVM_RUN returns, all vCPUs.
  notifyExits @1 :UInt64;
  # Queue notifications that came as an exit instead of through an ioeventfd.
  deviceCalls @2 :UInt64;
  # RPCs sent to devices.
}

struct MemoryGrant {
  # What of guest RAM a device is handed: what its profile says.
  union {
    none @0 :Void;
    readOnly @1 :Void;
    # All of it, by an fd through which it cannot be written.
    ranges @2 :List(Device.MemoryRange);
    # These and no others, in ascending order.
    all @3 :Void;
  }
}

interface Broker {
  create @0 (config :MachineConfig) -> ();
  # Makes VM, RAM and vCPUs.

  addDevice @1 (name :Text, pipe :Handle, memory :MemoryGrant, mayGiveBack :Bool,
             isReplaced :Bool) -> ();
  # `pipe`: a connected stream socket whose other end a device process holds. Devices appear on PCI
  # bus 0 from slot 1 on in the order of these calls. Returns when the device has described itself,
  # holds its memory and has answered ready. `mayGiveBack`: the device may have pages of guest RAM
  # given back to the host (DeviceHost.returnChains), any of them: which ones the driver means is
  # between it and the device. `isReplaced`: one that is lost has a successor,
  # and its driver waits for it; the loss of another ends the VM.

  load @2 (files :BootFiles) -> (entry :UInt64, protocol :Text);
  # Puts kernel, initrd and the boot tables into RAM. `protocol`: "linux64", "pvh" or "zircon".

  prepare @3 () -> ();
  # Returns when all is in place and the broker's serving filter is on: nothing of the guest has run.

  run @4 () -> ();
  # Lets the vCPUs go.

  waitForEnd @5 () -> (end :End);
  # Of the first thing that ended the guest. The vCPUs stand still from then on.

  hostEvent @6 (device :UInt16, event :Device.HostEvent) -> ();
  # Passes `event` to the device with this index, and returns what that answers. Of events that come
  # faster than the device takes them the last counts; the others fail.

  powerButton @7 () -> ();
  # Presses the ACPI power button.

  counters @8 () -> (counters :Counters);

  deviceReport @9 (device :UInt16) -> (report :Device.DeviceReport);
  # What the device with this index tells of itself. Lists in it are as long as device.capnp allows.

  pause @10 () -> ();
  # Returns when no vCPU is inside of the guest. None will be before resume(), a run(), a reboot() or
  # not.
  # Devices go on with what they have.

  resume @11 () -> ();

  reboot @12 (files :BootFiles) -> ();
  # Starts the guest anew, whether it runs or has ended: vCPUs stop, devices are reset, RAM is zero,
  # every register is as after power-on, and what it boots from is loaded from fds passed anew. An
  # end of the guest's that was not asked for yet is forgotten; a lost device or failed host is not,
  # and then this throws. waitForEnd is to be called again for the new boot.

  nextLoss @13 () -> (device :UInt16, process :UInt32, why :Text);
  # The next process of a device with `isReplaced` that is lost: which of those it has had, counted
  # from 0, and a sentence fragment: "closed its pipe". The process may live on. One call at a time.

  replaceDevice @14 (device :UInt16, pipe :Handle, beside :Bool) -> (process :UInt32);
  # Another process is to take the place of the one at the other end of the device's pipe, which is
  # dead, or with `beside` goes on. Returns when it has answered ready; it is not told of the driver
  # yet. `process`: how many the device has had before it. One that was prepared and did not come to
  # serve is given up.

  resumeDevice @15 (device :UInt16, ownFault :Bool) -> ();
  # Lets it go on where the process before stopped, of which no request may be left in the kernel.
  # `ownFault`: that one died of itself. Returns when it serves, which may take as long as a disk
  # needs to save what that one had not; throws when it is lost before.

  leaveDown @16 (device :UInt16) -> ();
  # Tells the driver of a device whose process is dead that only a reset helps (DEVICE_NEEDS_RESET).
  # Returns when the driver resets it, or begins; both then wait for replaceDevice and resumeDevice.

  handOver @17 (device :UInt16) -> ();
  # The process that serves lets go of its queues, and its pipe is closed: it ends. Returns then;
  # resumeDevice lets the one that was prepared beside it go on, or replaceDevice comes first.
}
