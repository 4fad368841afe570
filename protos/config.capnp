@0xc4e7b8125a90fd36;

# The configuration of one VM: what `troupe run` builds from its options and its file. The names are
# those of the options; in a file they are JSON keys (capnp/compat/json.h).

using Cxx = import "/capnp/c++.capnp";
using Json = import "/capnp/compat/json.capnp";
$Cxx.namespace("troupe");

struct DiskConfig {
  path @0 :Text;
  ro @1 :Bool;
  id @2 :Text;
  # Names the disk to `troupe`: at most 20 bytes; "" means diskN.
  format @3 :Text = "raw";
  # Said, never probed: "raw" or "qcow2".
  direct @4 :Bool;
  # Opens the file with O_DIRECT.
  queues @5 :UInt16 = 1;
  # 1 to 16.
  serial @6 :Text;
  # What GET_ID answers (§5.2.6), at most 20 bytes; "" means the id.
  rate @7 :Text;
  # What the guest may use of it in a second: "100M", "500iops", "100M/1G+500iops/1000", the burst
  # behind the slash; "" is without limit.
  backing @8 :List(Text);
  # The backing files of a qcow2 image from top to bottom, each "PATH:raw" or "PATH:qcow2". What a
  # header names has to be the next of them, with a relative name meant from the image's folder.
  volatile @9 :Bool;
  # The file is only read: what the guest writes is kept in memory and vanishes. Not with `ro`.
}

struct NetOptions {
  # One of the first three says where frames go.
  tap @0 :Text;
  # The name of a tap that is there.
  fd @1 :Text;
  # "5", or "5:6" with one for each queue: an open tap or a connected unix socket.
  user @2 :Bool;
  # Through the host's own sockets, by passt.
  mac @3 :Text;
  # "52:54:00:12:34:56"; "" makes one of the VM's name and the device's place.
  mtu @4 :UInt32;
  # What the guest is told; 0: the tap's, or nothing.
  queues @5 :UInt16;
  # Pairs of queues; 0: one for each fd.
  hostfwd @6 :List(Text);
  # With `user`: "tcp:8080:80", "udp:127.0.0.1:5353:53".
  pcap @7 :Text;
  # A new file for a copy of every frame.
  rate @8 :Text;
  # Each way: "100M", "5000fps", "100M/1G+5000fps"; "" is without limit.
  rateIn @9 :Text $Json.name("rate-in");
  # To the guest, in place of `rate`.
  rateOut @10 :Text $Json.name("rate-out");
  # From the guest, in place of `rate`.
  nospoof @11 :Bool;
  # The guest sends under its own MAC address alone.
}

struct BalloonOptions {
  stats @0 :Bool;
  # The guest is asked for statistics of its memory.
}

struct VsockOptions {
  cid @0 :UInt32;
  # The guest's address, 3 to 4294967294; 0: one that no other VM has.
  socket @1 :Text;
  # Clients connect here and say "CONNECT PORT"; what the guest connects to at the host's port N is
  # whoever listens at "SOCKET_N". "" means neither.
  forward @2 :List(Text);
  # Each "PORT:PATH": a client that connects to PATH reaches the guest's PORT.
}

struct ConsoleOptions {
  where @0 :Text;
  # "stdio", "pty", "file=PATH", "socket=PATH".
  name @1 :Text;
  # The guest's name for the port: at most 64 bytes, each name once; "" has none.
  port @2 :Bool;
  # A plain port of bytes, not a console.
  size @3 :Text;
  # "80x25": columns and rows that a console is told, 1 to 65535 each; "off": it is told none. "" is
  # the size of the terminal on stdio, and none elsewhere.
  replay @4 :Text = "on";
  # "on": who connects late to a socket is given the last MiB of what the guest said, and to the
  # guest the host's side is always open. "off": it is open while somebody is connected.
}

struct VmConfig {
  name @0 :Text;
  kernel @1 :Text;
  initrd @2 :Text;
  cmdline @3 :Text;
  cpus @4 :UInt32 = 1;
  memory @5 :Text = "512M";
  disks @6 :List(DiskConfig) $Json.name("disk");
  consoles @7 :List(ConsoleOptions) $Json.name("console");
  # The ports of the virtio console, at most eight; without any there is none.
  serial @8 :Text = "stdio";
  # "stdio", "file=PATH", "socket=PATH".
  rng @9 :Text = "on";
  # "on", "off", or "rate=1M": on, and what the guest may draw in a second, as DiskConfig.rate.
  cpuMask @10 :List(Text) $Json.name("cpu-mask");
  jail @11 :Text = "on";
  profileDir @12 :Text $Json.name("profile-dir");
  # A folder whose sandbox profiles replace those built in; "" means none.
  nets @13 :List(NetOptions) $Json.name("net");
  balloon @14 :BalloonOptions;
  # A memory balloon; without it there is none.
  onReboot @15 :Text = "restart" $Json.name("on-reboot");
  # What follows when the guest resets itself or crashes: "restart" or "exit".
  vsock @16 :VsockOptions;
  # Null: no socket device.
  metrics @17 :Text;
  # The path of a unix socket that answers HTTP with metrics; "": none.
  records @18 :List(Text) $Json.name("record");
  # Each "DEVICE=FILE": what the device sees is written to a new file, for `troupe replay`.
  recordLimit @19 :Text = "256M" $Json.name("record-limit");
  # What each of these may hold.
  hostMemory @20 :List(Text) $Json.name("host-memory");
  # Each "PATH,at=ADDRESS[,size=SIZE][,offset=OFFSET][,device][,shared]": a file or device of the
  # host's that the guest sees as memory from ADDRESS on.
}
