@0xd1f0a67c3be49258;

# Sandbox profiles that were compiled after the build: what `troupe --profile-dir` and the jailed
# compiler (troupe-policy) tell each other. The compiler has parsed what somebody wrote, so `troupe`
# checks its answer as that of any actor (sandbox/loaded_profile.h).

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe");

struct ProfileFile {
  path @0 :Text;
  # Below the folder: "devices/rng/rng.profile".
  text @1 :Data;
}

struct CompileRequest {
  # The compiler's configuration, in its setup message.
  folder @0 :Text;
  # As the user named it, for what is told about places.
  files @1 :List(ProfileFile);
  againstPath @2 :Text;
  # Not empty: the profile of this path is to be as tight as the one in force, or tighter. It was
  # compiled from `against`, and from what is built in where there is no such file.
  against @3 :List(ProfileFile);
}

struct CompileResult {
  # Written to the compiler's fd "result". With errors there are no profiles.
  profiles @0 :List(CompiledProfile);
  errors @1 :List(Text);
  # "FOLDER/devices/rng/rng.profile:14:3: what, and what to do", in their order.
  looser @2 :List(Text);
  # What the profile of `againstPath` allows and the one in force does not.
}

struct CompiledProfile {
  # The fields of sandbox::Profile (sandbox/profile.h).
  path @0 :Text;
  # Of the profile built in that this one replaces.
  actor @1 :Text;
  source @2 :Text;
  fds @3 :List(Fd);
  filters @4 :List(Filter);
  limits @5 :List(Limit);
  layers @6 :Layers;

  struct Fd {
    name @0 :Text;
    number @1 :UInt32;
    count @2 :UInt32;
    kind @3 :Text;
    handed @4 :Bool;
    optional @5 :Bool;
    closed @6 :Bool;
    made @7 :Bool;
  }

  struct Filter {
    stage @0 :Text;
    program @1 :Data;
    # struct sock_filter[], native byte order.
  }

  struct Limit {
    resource @0 :Int32;
    value @1 :UInt64;
  }

  struct Layer {
    need @0 :UInt8;
    # ProfileLayer::Need
    since @1 :UInt32;
  }

  struct Layers {
    namespaces @0 :List(Layer);
    landlock @1 :List(Layer);
    capabilities @2 :UInt64;
    mdwe @3 :Layer;
    executableSeals @4 :Layer;
    minimumKernel @5 :UInt32;
    memoryAccess @6 :UInt8;
    # ProfileMemory::Access
    memoryFd @7 :Text;
    ioUringOpcodes @8 :Data;
    cgroupLimits @9 :List(CgroupLimit);
    ioLimits @10 :List(IoLimit);
    restarts @11 :UInt32;
    restartSeconds @12 :UInt32;
    memoryRanges @13 :List(MemoryRange);
    ioUringSqeFlags @14 :UInt8;
    isHelper @15 :Bool;
    rootEntries @16 :List(RootEntry);
    isReplaced @17 :Bool;
    spares @18 :UInt32;
  }

  struct RootEntry {
    kind @0 :UInt8;
    # ProfileRootEntry::Kind
    path @1 :Text;
    target @2 :Text;
    optional @3 :Bool;
  }

  struct MemoryRange {
    address @0 :UInt64;
    size @1 :UInt64;
  }

  struct CgroupLimit {
    kind @0 :UInt8;
    # ProfileCgroupLimit::Kind
    value @1 :UInt64;
    layer @2 :Layer;
  }

  struct IoLimit {
    fd @0 :Text;
    readBytesPerSecond @1 :UInt64;
    writeBytesPerSecond @2 :UInt64;
    readsPerSecond @3 :UInt64;
    writesPerSecond @4 :UInt64;
    layer @5 :Layer;
  }
}
