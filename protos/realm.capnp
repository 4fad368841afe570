@0xded9d70f078ee694;

# Realms: groups of guests that know each other. Whoever holds a Realm launches guests into it, finds
# them by number, and reaches their serial ports, consoles, balloons and vsock ports; the guests of
# one realm reach each other over vsock, and no others.
#
# The names, the order and the numbers are those of fuchsia.virtualization of early 2020, whose table
# fields count from 1. What a table may leave out is a pointer here, null when it was left out. Where
# a method there takes the server's end of a channel, the one here returns the capability; a file or
# a socket is a Handle, whose fd its receiver duplicates. A call about something that does not exist
# fails with an exception that says so.
#
# Bounds for every text but paths and command lines: 255 bytes, no control characters.

using Cxx = import "/capnp/c++.capnp";
using Handle = import "handle.capnp".Handle;
$Cxx.namespace("troupe::realm");

enum BlockMode {
  readWrite @0;
  readOnly @1;
  # The guest is told; what it writes all the same is answered with an error.
  volatileWrite @2;
  # The file is only read: what the guest writes is kept in memory and vanishes with the VM.
}

enum BlockFormat {
  raw @0;
  qcow @1;
  # qcow2, versions 2 and 3.
}

const maxBlockDeviceIdSize :UInt64 = 20;
# What GET_ID has room for (virtio 1.2, section 5.2.6).

struct BlockDevice {
  # A disk whose file is open already.
  id @0 :Text;
  # What GET_ID answers: at most maxBlockDeviceIdSize bytes.
  mode @1 :BlockMode;
  format @2 :BlockFormat;
  file @3 :Handle;
  # A regular file or a block device, readable, and for readWrite writable too.
}

struct BlockSpec {
  # A disk that the bundle, or a directory granted with it, holds.
  path @0 :Text;
  format @1 :BlockFormat;
  mode @2 :BlockMode;
}

enum Kernel {
  zircon @0;
  linux @1;
}

enum MemoryPolicy {
  guestCached @0;
  # Memory of the guest's own: RAM.
  hostCached @1;
  # Memory of the host's that whoever runs the realms permits at these addresses (troupe serve
  # --permit-host-memory): files of tmpfs or huge pages, DAX devices. No RAM to the guest.
  hostDevice @2;
  # The same of a device of the host's, uncached.
}

struct MemorySpec {
  base @0 :UInt64;
  # The first guest-physical address. RAM from 0 on goes round the devices' addresses below 4 GiB;
  # with another base a region lies exactly there, or is refused.
  size @1 :UInt64;
  # Bytes.
  policy @2 :MemoryPolicy;
}

struct MacAddress {
  octets @0 :Data;
  # Six.
}

struct NetSpec {
  # What is on the other side of the link is the realm's choice.
  macAddress @0 :MacAddress;
}

struct OptionalKernel {
  value @0 :Kernel;
}

struct OptionalBool {
  value @0 :Bool;
}

struct OptionalUInt8 {
  value @0 :UInt8;
}

struct GuestConfig {
  # What one guest is made of. For what is left out, guest.cfg of the bundle speaks, and then the
  # default. A list that is given comes before the one in guest.cfg, and does not replace it.
  kernel @0 :OptionalKernel;
  # By default zircon.
  kernelPath @1 :Text;
  ramdiskPath @2 :Text;
  dtbOverlayPath @3 :Text;
  # A device tree for a Linux guest, which gets it as setup_data.
  blockDevices @4 :List(BlockSpec);
  cmdline @5 :Text;
  # Follows that of guest.cfg, behind a space.
  cmdlineAdd @6 :List(Text);
  # Follow both, each behind a space.
  memory @7 :List(MemorySpec);
  # By default 1 GiB from 0, guestCached.
  interrupts @8 :List(UInt32);
  # Of devices of the host that are passed through.
  cpus @9 :OptionalUInt8;
  # At least 1; by default as many as the host has.
  netDevices @10 :List(NetSpec);
  defaultNet @11 :OptionalBool;
  # Behind them one with the address 02:1a:11:00:01:00. By default true, like those that follow.
  virtioBalloon @12 :OptionalBool;
  virtioConsole @13 :OptionalBool;
  virtioGpu @14 :OptionalBool;
  virtioMagma @15 :OptionalBool;
  virtioRng @16 :OptionalBool;
  virtioVsock @17 :OptionalBool;
}

interface WaylandDispatcher {
  # Given to a virtio_wl device: who is told of its guest's Wayland clients.
  onNewConnection @0 (channel :Handle) -> ();
  # `channel`: a connected SOCK_SEQPACKET socket; each datagram holds whole Wayland messages.
}

struct WaylandDevice {
  memory @0 :UInt64 = 1073741824;
  # Bytes of guest-physical addresses (not of RAM) for its buffers.
  dispatcher @1 :WaylandDispatcher;
}

struct MagmaDevice {
  memory @0 :UInt64 = 17179869184;
  # Bytes of guest-physical addresses for its buffers.
}

struct FlatNamespace {
  # Directories that paths in the configuration may begin with. As many of one as of the other.
  paths @0 :List(Text);
  # Absolute, each once.
  directories @1 :List(Handle);
}

struct LaunchInfo {
  url @0 :Text;
  # The bundle: the path of a directory, or "file://" and one. It holds guest.cfg.
  guestConfig @1 :GuestConfig;
  label @2 :Text;
  # Shown in lists; null: `url`.
  flatNamespace @3 :FlatNamespace;
  blockDevices @4 :List(BlockDevice);
  # Come after those of the configuration.
  waylandDevice @5 :WaylandDevice;
  magmaDevice @6 :MagmaDevice;
}

struct InstanceInfo {
  cid @0 :UInt32;
  # The guest's vsock address and its number in the realm: from 3, each once for as long as the
  # realm lives.
  label @1 :Text;
}

interface Guest {
  # One guest that was launched. Dropping it does not end the guest.
  getSerial @0 () -> (socket :Handle);
  # Its serial port: a stream socket. Every holder reads all that is said, after the last 1 MiB.
  getConsole @1 () -> (socket :Handle);
  # The same of its first virtio console. Fails where it has none.
  getHostVsockEndpoint @2 () -> (endpoint :HostVsockEndpoint);
  # Fails where it has no vsock device.
  stop @3 (force :Bool) -> ();
  # Asks the guest to switch itself off, or with `force` ends it. Returns when it has ended.
  pause @4 () -> ();
  resume @5 () -> ();
  waitForEnd @6 () -> (end :GuestEnd);
  waitForStart @7 () -> (name :Text, notes :List(Text));
  # Returns when it has begun to run, with the name it has on this host, by which the other commands
  # of `troupe` find it. Fails when it never does. `notes`: what of its configuration was passed over
  # or left out, a line each, 32 at most.
}

struct GuestEnd {
  exitCode @0 :UInt8;
  # As `troupe run` would have ended (docs/exit-codes.md).
  reason @1 :Text;
  # A sentence.
}

interface BalloonController {
  getNumPages @0 () -> (currentNumPages :UInt32);
  # What the guest says it has given, in pages of 4 KiB.
  requestNumPages @1 (requestedNumPages :UInt32) -> ();
  # Fails for more than the guest has RAM.
  getMemStats @2 () -> (status :MemStatStatus, memStats :List(MemStat));

  enum MemStatStatus {
    ok @0;
    notSupported @1;
    # The guest does not offer statistics.
    shouldWait @2;
    # It has offered none yet, or eight callers wait already.
    io @3;
    # What it offered makes no sense.
  }
}

struct MemStat {
  tag @0 :UInt16;
  # Virtio 1.2, section 5.5.6.4: 0 swapped in, 1 swapped out, 2 major and 3 minor faults, 4 free,
  # 5 all, 6 available, 7 caches, 8 and 9 huge pages got and not.
  val @1 :UInt64;
}

enum VsockStatus {
  ok @0;
  alreadyBound @1;
  connectionRefused @2;
  noResources @3;
}

interface HostVsockAcceptor {
  # Implemented by whoever listens on the host's side (cid 2) of a realm.
  accept @0 (srcCid :UInt32, srcPort :UInt32, port :UInt32) -> (status :VsockStatus, socket :Handle);
  # `socket`: a connected stream socket, whose other end the listener keeps; null unless ok.
}

interface HostVsockEndpoint {
  # The host's side of a realm. All of a realm's clients share its ports.
  listen @0 (port :UInt32, acceptor :HostVsockAcceptor) -> (status :VsockStatus);
  # Until this endpoint is dropped. alreadyBound: somebody listens, or a connection has that port.
  # `acceptor` is an object of the client's own: what it was given here is refused.
  connect @1 (cid :UInt32, port :UInt32, socket :Handle) -> (status :VsockStatus);
  # `socket` is one end of a stream socket pair; the guest's stream is on the other then.
  # connectionRefused: no such guest, cid 2, or the guest does not listen. Of the host's ports it
  # takes the lowest free one of 49152 to 65535; noResources when there is none.
}

# The three that follow are what a guest's vsock device and its realm say to each other. Troupe's own
# device says the same by connector.capnp, which tells of many ends at a time.

interface HostVsockConnector {
  # What a guest's vsock device reaches others by.
  connect @0 (srcCid :UInt32, srcPort :UInt32, cid :UInt32, port :UInt32)
      -> (status :VsockStatus, socket :Handle);
}

interface GuestVsockAcceptor {
  # Implemented by a guest's vsock device.
  accept @0 (srcCid :UInt32, srcPort :UInt32, port :UInt32, socket :Handle) -> (status :VsockStatus);
  # alreadyBound: a stream between these ports is alive.
}

interface GuestVsockEndpoint {
  # A guest's vsock device to its realm.
  setContextId @0 (cid :UInt32, connector :HostVsockConnector) -> (acceptor :GuestVsockAcceptor);
  # Once, before the guest runs.
  onShutdown @1 (listener :ShutdownListener) -> ();

  interface ShutdownListener {
    shutdown @0 (srcCid :UInt32, srcPort :UInt32, dstCid :UInt32, dstPort :UInt32) -> ();
    # A stream has ended, and its ports are free.
  }
}

interface Realm {
  # Its last holder's end is the end of its guests, unless it is kept.
  launchInstance @0 (launchInfo :LaunchInfo) -> (cid :UInt32, controller :Guest);
  # Returns before the guest boots. What goes wrong from there on is said by waitForEnd().
  listInstances @1 () -> (instances :List(InstanceInfo));
  # Those that have not ended, in no order.
  connectToInstance @2 (cid :UInt32) -> (controller :Guest);
  connectToBalloon @3 (cid :UInt32) -> (controller :BalloonController);
  getHostVsockEndpoint @4 () -> (endpoint :HostVsockEndpoint);
}

struct GuestSummary {
  # One guest, in lists of them all.
  name @0 :Text;
  # On this host; "" until its processes are there.
  realm @1 :UInt32;
  realmLabel @2 :Text;
  cid @3 :UInt32;
  label @4 :Text;
  state @5 :Text;
  # As VmStatus of control.capnp.
  uptimeMs @6 :UInt64;
  cpus @7 :UInt32;
  memoryBytes @8 :UInt64;
  pid @9 :Int32;
  # Of the daemon.
  restarts @10 :UInt64;
  # Processes that have taken the place of one of its devices'.
}

struct EnvironmentInfo {
  id @0 :UInt32;
  # From 0, each once for as long as the daemon runs.
  label @1 :Text;
  instances @2 :List(InstanceInfo);
}

interface Manager {
  create @0 (label :Text, net :Text, noHostMemory :Bool) -> (realm :Realm, id :UInt32);
  # `net`: what is behind its guests' networks, "user", "bridge=NAME", "tap-prefix=P" or "none"; null
  # for what the daemon was started with. `noHostMemory`: its guests get no memory of the host's,
  # whatever the daemon permits.
  list @1 () -> (environments :List(EnvironmentInfo));
  connect @2 (id :UInt32) -> (realm :Realm);
  listGuests @3 () -> (guests :List(GuestSummary));
  # Of all realms.
  connectToGuest @4 (name :Text) -> (cid :UInt32, controller :Guest);
  # By the name it has on this host. Whoever only looks holds no realm: unlike what
  # connect() returns, this keeps no guest alive.
}
