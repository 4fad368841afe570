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
  # At most 20 bytes (§5.2.6); "" means diskN.
  format @3 :Text = "raw";
  # Said, never probed; only "raw" exists.
  direct @4 :Bool;
  # Opens the file with O_DIRECT.
  queues @5 :UInt16 = 1;
  # 1 to 16.
}

struct VmConfig {
  name @0 :Text;
  kernel @1 :Text;
  initrd @2 :Text;
  cmdline @3 :Text;
  cpus @4 :UInt32 = 1;
  memory @5 :Text = "512M";
  disks @6 :List(DiskConfig) $Json.name("disk");
  console @7 :Text;
  # "stdio", "pty", "file=PATH", "socket=PATH"; "" means no virtio console.
  serial @8 :Text = "stdio";
  # "stdio", "file=PATH", "socket=PATH".
  rng @9 :Text = "on";
  cpuMask @10 :List(Text) $Json.name("cpu-mask");
  jail @11 :Text = "on";
  profileDir @12 :Text $Json.name("profile-dir");
  # A folder whose sandbox profiles replace those built in; "" means none.
}
