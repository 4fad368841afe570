#include "sandbox/policy_layers.h"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/io_uring.h>

#include <string>

#include "sandbox/testing/profile_tree.h"

namespace troupe::sandbox::testing {
namespace {

constexpr char ACTOR[] =
    "actor: 'a'\n"
    "fd { name: 'ram' number: 16 kind: MEMFD from: PLACED closed: true }\n"
    "fd { name: 'kept' number: 17 kind: MEMFD from: PLACED }\n"
    "fd { name: 'disk' number: 18 kind: FILE }\n";

PolicyLayers layersOf(const std::string& text) {
  return ProfileTree().add("a", ACTOR + text).read("a").layers;
}

// The error of a profile whose fifth line is `text`.
std::string errorOf(const std::string& text) {
  return ProfileTree().add("a", ACTOR + text).error("a");
}

const ProfileLayer& of(const PolicyLayers& layers, LandlockAccess access) {
  return layers.landlock[size_t(access)].layer;
}

const ProfileLayer& of(const PolicyLayers& layers, NamespaceKind kind) {
  return layers.namespaces[size_t(kind)].layer;
}

// What includes say of older kernels holds for none that the profile starts on.
TEST(PolicyLayers, ProfileMayAskForAYoungerKernelThanItsIncludes) {
  ProfileTree tree;
  tree.add("shared", "mdwe { optional: 'since 6.3' } landlock { deny: TCP optional: 'since 6.7' }");
  tree.add("a", ACTOR + std::string("include: 'shared' minimum_kernel: '6.5'"));
  PolicyLayers layers = tree.read("a").layers;
  EXPECT_EQ("required", needText(layers.mdwe.layer));
  EXPECT_EQ("since 6.7", needText(of(layers, LandlockAccess::TCP)));
}

TEST(PolicyLayers, AreTheClosestWhereNothingIsSaid) {
  PolicyLayers layers = layersOf("");
  for (const PolicyLayer& one : layers.namespaces)
    EXPECT_EQ(ProfileLayer::REQUIRED, one.layer.need);
  EXPECT_EQ("required", needText(of(layers, LandlockAccess::FILES)));
  EXPECT_EQ("since 6.2", needText(of(layers, LandlockAccess::TRUNCATE)));
  EXPECT_EQ("since 6.7", needText(of(layers, LandlockAccess::TCP)));
  EXPECT_EQ("since 6.10", needText(of(layers, LandlockAccess::DEVICE_IOCTLS)));
  EXPECT_EQ("since 6.12", needText(of(layers, LandlockAccess::ABSTRACT_SOCKETS)));
  EXPECT_EQ("since 6.12", needText(of(layers, LandlockAccess::SIGNALS)));
  EXPECT_EQ("since 6.3", needText(layers.mdwe.layer));
  EXPECT_EQ("since 6.3", needText(layers.executableSeals.layer));
  EXPECT_EQ("6.1", versionText(layers.minimumKernel));
  EXPECT_TRUE(layers.capabilities.empty());
  EXPECT_EQ(ProfileMemory::NONE, layers.memory.access);
  EXPECT_TRUE(layers.ioUringOpcodes.empty());
  EXPECT_TRUE(layers.cgroupLimits.empty());
  EXPECT_EQ(0u, layers.restart.restarts);
}

// What every profile includes says aloud what holds without it.
TEST(PolicyLayers, OfTheSharedJailAreTheDefaults) {
  PolicyLayers shared =
      ProfileTree()
          .add("a", "actor: 'a'\ninclude: '" + std::filesystem::current_path().string() +
                        "/sandbox/common/jail.profile'")
          .read("a")
          .layers;
  PolicyLayers none = layersOf("");
  for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
    EXPECT_EQ(needText(none.namespaces[i].layer), needText(shared.namespaces[i].layer));
    EXPECT_GT(shared.namespaces[i].where.line, 0);
  }
  for (size_t i = 0; i < LANDLOCK_ACCESS_COUNT; i++) {
    EXPECT_EQ(needText(none.landlock[i].layer), needText(shared.landlock[i].layer));
    EXPECT_GT(shared.landlock[i].where.line, 0);
  }
  EXPECT_EQ(needText(none.mdwe.layer), needText(shared.mdwe.layer));
  EXPECT_EQ(needText(none.executableSeals.layer), needText(shared.executableSeals.layer));
  EXPECT_EQ(none.minimumKernel, shared.minimumKernel);
  EXPECT_EQ(none.memory.access, shared.memory.access);
  EXPECT_EQ(none.restart.restarts, shared.restart.restarts);
  for (const SourceLocation& where :
       {shared.root, shared.mdwe.where, shared.executableSeals.where, shared.minimumKernelAt,
        shared.memory.where, shared.restartAt}) {
    EXPECT_GT(where.line, 0);
  }
}

TEST(PolicyLayers, AreAsWritten) {
  PolicyLayers layers = layersOf(R"(
    minimum_kernel: "6.3"
    namespaces { kind: [ USER, MOUNT, NET ] }
    namespaces { kind: CGROUP optional: "yes" }
    root: EMPTY
    landlock { deny: FILES optional: "since 6.4" }
    capability { name: "NET_ADMIN" reason: "x" }
    capability { name: "CHECKPOINT_RESTORE" reason: "x" }
    mdwe { off: "a compiler writes code" }
    executable_seals { }
    memory {
      access: RANGES
      fd: "ram"
      range { address: 0x1000 size: 0x2000 }
      range { address: 0x3000 size: 0x1000 }
    }
    io_uring { opcode: [ "WRITEV", "READV" ] sqe_flag: [ "FIXED_FILE", "ASYNC" ] reason: "x" }
    cgroup {
      memory_max { value: 268435456 optional: "yes" }
      pids_max { value: 20 }
      cpu_max { value: 150 optional: "since 6.5" }
      io { fd: "disk" read_bytes_per_second: 1000000 writes_per_second: 500 optional: "yes" }
    }
    restart { policy: ALWAYS restarts: 5 seconds: 60 spare: 1 }
  )");
  EXPECT_EQ("6.3", versionText(layers.minimumKernel));
  EXPECT_EQ("required", needText(of(layers, NamespaceKind::NET)));
  EXPECT_EQ("off", needText(of(layers, NamespaceKind::PID)));
  EXPECT_EQ("optional", needText(of(layers, NamespaceKind::CGROUP)));
  EXPECT_EQ("since 6.4", needText(of(layers, LandlockAccess::FILES)));
  EXPECT_EQ("off", needText(of(layers, LandlockAccess::TCP)));
  ASSERT_EQ(2u, layers.capabilities.size());
  EXPECT_EQ(uint32_t(CAP_NET_ADMIN), layers.capabilities[0].number);
  EXPECT_EQ(uint32_t(CAP_CHECKPOINT_RESTORE), layers.capabilities[1].number);
  EXPECT_EQ("off", needText(layers.mdwe.layer));
  EXPECT_EQ("required", needText(layers.executableSeals.layer));
  EXPECT_EQ(ProfileMemory::RANGES, layers.memory.access);
  EXPECT_EQ("ram", layers.memory.fd);
  ASSERT_EQ(2u, layers.memory.ranges.size());
  EXPECT_EQ(0x3000u, layers.memory.ranges[1].address);
  EXPECT_EQ(0x1000u, layers.memory.ranges[1].size);
  ASSERT_EQ(2u, layers.ioUringOpcodes.size());
  EXPECT_EQ(IORING_OP_READV, layers.ioUringOpcodes[0].number);
  EXPECT_EQ(IORING_OP_WRITEV, layers.ioUringOpcodes[1].number);
  ASSERT_EQ(2u, layers.ioUringSqeFlags.size());
  EXPECT_EQ(IOSQE_ASYNC, layers.ioUringSqeFlags[1].number);
  ASSERT_EQ(3u, layers.cgroupLimits.size());
  EXPECT_EQ(268435456u, layers.cgroupLimits[0].value);
  EXPECT_EQ("optional", needText(layers.cgroupLimits[0].layer));
  EXPECT_EQ("required", needText(layers.cgroupLimits[1].layer));
  EXPECT_EQ("since 6.5", needText(layers.cgroupLimits[2].layer));
  ASSERT_EQ(1u, layers.ioLimits.size());
  EXPECT_EQ(1000000u, layers.ioLimits[0].readBytesPerSecond);
  EXPECT_EQ(500u, layers.ioLimits[0].writesPerSecond);
  EXPECT_TRUE(layers.restart.always);
  EXPECT_EQ(5u, layers.restart.restarts);
  EXPECT_EQ(1u, layers.restart.spares);
  EXPECT_EQ(60u, layers.restart.seconds);
}

TEST(PolicyLayers, OfAFileReplaceThoseOfItsIncludes) {
  ProfileTree tree;
  tree.add("low", "mdwe { optional: 'since 6.3' } landlock { deny: [ FILES, TCP ] }");
  tree.add("high", "include: 'low' mdwe { off: 'x' } landlock { deny: SIGNALS }");
  tree.add("a", ACTOR + std::string("include: 'low' include: 'high'"));
  PolicyLayers layers = tree.read("a").layers;
  EXPECT_EQ("off", needText(layers.mdwe.layer));
  EXPECT_EQ("off", needText(of(layers, LandlockAccess::FILES)));
  EXPECT_EQ("required", needText(of(layers, LandlockAccess::SIGNALS)));
  EXPECT_EQ("high", layers.mdwe.where.file);
}

TEST(PolicyLayers, MayBeMissingOnlyWhereTheProfileSaysSo) {
  ProfileLayer since = layersOf("mdwe { optional: 'since 6.3' }").mdwe.layer;
  EXPECT_TRUE(since.mayBeMissing(kernelVersion(6, 1)));
  EXPECT_FALSE(since.mayBeMissing(kernelVersion(6, 3)));
  EXPECT_FALSE(since.mayBeMissing(kernelVersion(6, 12)));
  EXPECT_FALSE(layersOf("mdwe { }").mdwe.layer.mayBeMissing(kernelVersion(6, 1)));
  EXPECT_TRUE(layersOf("mdwe { optional: 'yes' }").mdwe.layer.mayBeMissing(kernelVersion(7, 0)));
}

TEST(PolicyLayersError, NamesThePlaceAndWhatToDo) {
  auto expect = [](const std::string& text, const std::string& error) {
    EXPECT_EQ(error, errorOf(text));
  };
  expect("minimum_kernel: '6'", "a:5:1: `minimum_kernel` is \"6\"; it is a version like \"6.1\"");
  for (const char* version : {"6.", ".1", "6.1.2", "6.1 ", "06.1", "6.1000", "0.1", "x", "-1.2"}) {
    EXPECT_NE(std::string::npos,
              errorOf(std::string("minimum_kernel: '") + version + "'").find("is a version like"))
        << version;
  }
  expect("namespaces { kind: [ USER, NET ] }",
         "a:5:1: USER and MOUNT are always among the namespaces: the empty root is built in them; "
         "add both");
  expect("namespaces { kind: [ USER, MOUNT ] optional: 'yes' }",
         "a:5:14: USER cannot be optional: the empty root is built in the actor's own user and "
         "mount namespaces");
  expect("namespaces { kind: USER kind: MOUNT kind: USER }",
         "a:5:37: USER is given twice; drop one");
  expect("namespaces { kind: UNSPECIFIED }",
         "a:5:14: UNSPECIFIED is no namespace; they are USER, PID, NET, MOUNT, IPC, UTS and "
         "CGROUP");
  expect("namespaces { }", "a:5:1: `namespaces` lists each `kind`: USER");
  expect("namespaces { kind: TIME }",
         "a:5:20: \"TIME\" is no `kind`; there are USER, PID, NET, MOUNT, IPC, UTS and CGROUP");
  expect("root: HOST", "a:5:7: \"HOST\" is no `root`; there is EMPTY");
  expect("landlock { }", "a:5:1: `landlock` lists what it is to `deny`: FILES");
  expect("landlock { deny: TCP }\nlandlock { deny: TCP }", "a:6:12: TCP is given twice; drop one");
  expect("landlock { deny: TCP optional: 'since 6' }",
         "a:5:22: `optional` is \"since 6\"; it is \"since X.Y\", where X.Y is the kernel from "
         "which on the layer must be there, or \"yes\"");
  expect("mdwe { optional: 'since 6.1' }",
         "a:5:8: every kernel from `minimum_kernel` (6.1) on is that new; drop `optional`");
  expect("mdwe { optional: 'yes' off: 'x' }",
         "a:5:24: a layer that is `off` has no `optional`; drop one");
  expect("capability { name: 'NET_ADMIM' reason: 'x' }",
         "a:5:14: there is no capability \"NET_ADMIM\"; the nearest is NET_ADMIN");
  expect("capability { name: 'CAP_BPF' reason: 'x' }",
         "a:5:14: there is no capability \"CAP_BPF\"; it is written without CAP_");
  expect("capability { name: 'BPF' }",
         "a:5:1: the capability BPF has no `reason`; say who needs it, and for what");
  expect("capability { reason: 'x' }", "a:5:1: names no capability");
  expect("capability { name: 'BPF' reason: 'x' }\ncapability { name: 'BPF' reason: 'x' }",
         "a:6:14: BPF is given twice; drop one");
  expect("memory { }", "a:5:1: `memory` has an `access`: NONE, READ_ONLY, RANGES or ALL");
  expect("memory { access: ALL }", "a:5:1: `memory` names the `fd` that is guest RAM");
  expect("memory { access: ALL fd: 'rma' }",
         "a:5:22: the profile has no fd \"rma\"; it has ram, kept, disk");
  expect("memory { access: ALL fd: 'disk' }",
         "a:5:22: guest RAM is one fd of kind MEMFD; \"disk\" (a:4:1) is not");
  expect("memory { access: RANGES fd: 'kept' }",
         "a:5:25: an actor that may reach ranges of guest RAM keeps no fd of all of it: \"kept\" "
         "(a:3:1) needs `closed: true`");
  expect("memory { access: NONE fd: 'ram' }",
         "a:5:23: an actor without access to guest RAM has no fd of it; drop `fd`");
  expect("memory { access: RANGES fd: 'ram' }",
         "a:5:1: `memory` with RANGES names each `range` { address: … size: … }");
  expect("memory { access: ALL fd: 'ram' range { size: 4096 } }",
         "a:5:32: `range` goes with `access: RANGES` only");
  const char* pages =
      "a:5:35: a range is made of whole pages: `address` and `size` are multiples of 4096, and "
      "`size` is not 0";
  expect("memory { access: RANGES fd: 'ram' range { size: 1 } }", pages);
  expect("memory { access: RANGES fd: 'ram' range { address: 1 size: 4096 } }", pages);
  expect("memory { access: RANGES fd: 'ram' range { address: 4096 } }", pages);
  expect("memory { access: RANGES fd: 'ram' range { address: 18446744073709547520 size: 8192 } }",
         "a:5:35: this range goes beyond the last address");
  expect(
      "memory { access: RANGES fd: 'ram' range { size: 8192 }\n"
      "range { address: 4096 size: 4096 } }",
      "a:6:1: this range begins before the end of the one above it");
  expect("io_uring { opcode: 'READV' sqe_flag: 'FIXED' reason: 'x' }",
         "a:5:28: there is no flag of io_uring operations \"FIXED\"; the nearest is FIXED_FILE");
  expect("io_uring { reason: 'x' }", "a:5:1: `io_uring` names each `opcode`; without any, drop it");
  expect("io_uring { opcode: 'READV' }",
         "a:5:1: `io_uring` has no `reason`; say who needs it, and for what");
  expect("io_uring { opcode: 'REDAV' reason: 'x' }",
         "a:5:12: there is no operation of io_uring \"REDAV\"; the nearest is READV");
  expect("io_uring { opcode: 'READV' opcode: 'READV' reason: 'x' }",
         "a:5:28: READV is given twice; drop one");
  expect("cgroup { }",
         "a:5:1: `cgroup` limits nothing; it has memory_max, pids_max, cpu_max and io");
  expect("cgroup { memory_max { value: 4096 } }",
         "a:5:23: the `value` of memory_max is 4096; it is 1048576 to 1125899906842624");
  expect("cgroup { pids_max { } }", "a:5:10: the `value` of pids_max is 0; it is 1 to 4194304");
  expect("cgroup { cpu_max { value: 100 optional: 'maybe' } }",
         "a:5:31: `optional` is \"maybe\"; it is \"since X.Y\", where X.Y is the kernel from which "
         "on the layer must be there, or \"yes\"");
  expect("cgroup { io { fd: 'disk' } }",
         "a:5:10: `io` limits nothing; it has read_bytes_per_second, write_bytes_per_second, "
         "reads_per_second and writes_per_second");
  expect("cgroup { io { fd: 'ram' reads_per_second: 1 } }",
         "a:5:15: `io` is about files and block devices; \"ram\" is of kind memfd");
  expect("restart { }", "a:5:1: `restart` has a `policy`: NEVER or ALWAYS");
  expect("restart { policy: NEVER restarts: 1 }",
         "a:5:1: an actor that is never replaced has no `restarts`, no `seconds` and no `spare`; "
         "drop them");
  expect("restart { policy: ALWAYS restarts: 1001 seconds: 1 }", "a:5:26: `restarts` is 1 to 1000");
  expect("restart { policy: ALWAYS restarts: 1 }", "a:5:1: `seconds` is 1 to 86400");
  expect("restart { policy: ALWAYS seconds: 1 }", "a:5:1: `restarts` is 1 to 1000");
  expect("restart { policy: ALWAYS spare: 2 }", "a:5:26: `spare` is 0 or 1");
}

TEST(PolicyLayersError, TwoIncludesThatDisagreeAreNamed) {
  ProfileTree tree;
  tree.add("one", "mdwe { }").add("two", "\n mdwe { off: 'x' }");
  tree.add("a", ACTOR + std::string("include: 'one' include: 'two'"));
  EXPECT_EQ(
      "two:2:2: `mdwe` is given at one:1:1 too, and this file does not include that one; say in a "
      "which holds",
      tree.error("a"));
  tree.add("a", ACTOR + std::string("include: 'one' include: 'two' mdwe { }"));
  EXPECT_EQ("", tree.error("a"));
}

TEST(PolicyLayersError, EveryMistakeIsFound) {
  ProfileTree tree;
  tree.add("a", ACTOR + std::string("mdwe { optional: 'x' }\nmemory { }\nrestart { }\n"
                                    "capability { }\ncgroup { pids_max { } cpu_max { } }"));
  EXPECT_EQ(6u, tree.examine("a").errors.size());
}

TEST(PolicyLayers, AHelpersRootIsListed) {
  PolicyLayers layers = layersOf(
      "helper { reason: 'r' root { kind: FILE path: '/lib/c.so' optional: true } "
      "root { kind: FOLDER path: '/tmp' } root { kind: LINK path: '/a/b' target: '../c' } }");
  EXPECT_TRUE(layers.helper.is);
  ASSERT_EQ(3u, layers.helper.root.size());
  EXPECT_EQ(ProfileRootEntry::FILE, layers.helper.root[0].kind);
  EXPECT_TRUE(layers.helper.root[0].optional);
  EXPECT_EQ("/tmp", layers.helper.root[1].path);
  EXPECT_EQ("../c", layers.helper.root[2].target);
  EXPECT_FALSE(layersOf("").helper.is);
}

TEST(PolicyLayers, AHelpersRootIsMadeOfPlainPaths) {
  auto error = [](const std::string& entry) {
    return errorOf("helper { reason: 'r' root { " + entry + " } }");
  };
  for (const char* path :
       {"", "/", "lib", "/a/", "//a", "/a//b", "/..", "/../a", "/a/../b", "/a/."}) {
    EXPECT_NE(std::string::npos,
              error("kind: FILE path: '" + std::string(path) + "'").find("is no path for `root`"))
        << path;
  }
  EXPECT_NE(std::string::npos, error("path: '/a'").find("has a `kind`"));
  EXPECT_NE(std::string::npos, error("kind: LINK path: '/a'").find("`target` goes with LINK"));
  EXPECT_NE(std::string::npos, error("kind: FILE path: '/a' target: 'b'").find("`target` goes"));
  EXPECT_NE(std::string::npos, error("kind: FOLDER path: '/a' optional: true").find("`optional`"));
  EXPECT_NE(std::string::npos,
            error("kind: FILE path: '/a' } root { kind: FOLDER path: '/a'").find("is given twice"));
  EXPECT_NE(std::string::npos, errorOf("helper { }").find("has no `reason`"));
}

}  // namespace
}  // namespace troupe::sandbox::testing
