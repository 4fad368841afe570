// What of a LaunchInfo and a bundle a VM starts from.
#include "vmm/realm/launch.h"

#include <capnp/dynamic.h>
#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/function.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "vmm/config/config_file.h"
#include "vmm/net/mac_lease.h"

namespace troupe::realm {
namespace {

class Bench {
 public:
  Bench() {
    char name[] = "/tmp/troupe-launch-XXXXXX";
    KJ_ASSERT(mkdtemp(name) != nullptr);
    path = name;
    chmod(name, 0700);
    setenv("XDG_RUNTIME_DIR", name, 1);
    std::filesystem::create_directory(path + "/b");
    write("b/k", "kernel");
    write("b/one.img", std::string(1024, 'a'));
    write("b/two.img", std::string(1024, 'b'));
    write("mine.img", std::string(512, 'c'));
    info.setUrl(path + "/b");
    terms.net.kind = NetChoice::Kind::NONE;
  }
  ~Bench() { std::filesystem::remove_all(path); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(path + "/" + name) << text;
  }
  void cfg(const std::string& text) { write("b/guest.cfg", text); }
  void typed(const std::string& text) { write("b/troupe.json", text); }

  // One of LaunchInfo.blockDevices.
  void hand(const char* id, BlockMode mode, const char* file, int flags) {
    ids.push_back(id);
    modes.push_back(mode);
    fds.add(kj::AutoCloseFd(open((path + "/" + file).c_str(), flags | O_CLOEXEC)));
  }

  VmStart start() {
    auto blocks = info.initBlockDevices(ids.size());
    for (size_t i = 0; i < ids.size(); i++) {
      blocks[i].setId(ids[i]);
      blocks[i].setMode(modes[i]);
    }
    GuestPlace place{kj::str("guest"), 3, kj::str(path.c_str(), "/serial"),
                     kj::str(path.c_str(), "/console")};
    return startOf(info.asReader(), LaunchFds{nullptr, fds.releaseAsArray()}, place, terms);
  }

  std::string refusal() {
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { start(); })) {
      return exception->getDescription().cStr();
    }
    return "";
  }

  std::string path;
  capnp::MallocMessageBuilder message;
  LaunchInfo::Builder info = message.initRoot<LaunchInfo>();
  RealmTerms terms;
  std::vector<const char*> ids;
  std::vector<BlockMode> modes;
  kj::Vector<kj::AutoCloseFd> fds;
};

bool has(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

TEST(Launch, MergesWhatIsSaidIntoOnePlan) {
  Bench bench;
  bench.cfg(R"({"linux": "/k", "cpus": "2", "memory": ["64M", "40000000,16M"], "cmdline": "file",
                "virtio-vsock": "false"})");
  bench.info.initGuestConfig().setCmdline("launch");
  auto start = bench.start();
  EXPECT_STREQ(start.plan.name.cStr(), "guest");
  EXPECT_EQ(start.plan.kernelKind, KernelKind::LINUX);
  EXPECT_EQ(start.files.kernel.size, 6u);
  EXPECT_EQ(start.plan.cpus, 2u);
  EXPECT_EQ(start.plan.memoryBytes, 80u << 20);
  ASSERT_EQ(start.plan.placedRam.size(), 2u);
  EXPECT_EQ(start.plan.placedRam[1].guestAddress, 0x40000000u);
  EXPECT_STREQ(start.plan.cmdline.cStr(), "file launch");
  EXPECT_TRUE(start.plan.balloon != nullptr);
  EXPECT_TRUE(start.plan.rng);
  EXPECT_EQ(start.plan.consoles.size(), 1u);
  EXPECT_TRUE(start.plan.vsock == nullptr);
  EXPECT_TRUE(start.files.vsock == nullptr);
  EXPECT_EQ(start.plan.nets.size(), 0u);
  ASSERT_EQ(start.notes.size(), 2u);  // the gpu, and the network that the realm has not
}

TEST(Launch, MemoryOfTheHostsIsThatWhichWasPermittedForItsAddress) {
  Bench bench;
  bench.write("window", std::string(5 << 12, 'w'));
  bench.cfg(R"({"linux": "/k", "memory": ["64M", "100001000,8k,cached"]})");
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-062")) << bench.refusal();
  auto file = kj::str(bench.path.c_str(), "/window");
  bench.terms.hostMemory.add(HostMemoryWords{kj::str(file), 0x100000000, 5 << 12, 0,
                                             HostMemoryWords::Kind::CACHED, false});
  {
    auto start = bench.start();
    ASSERT_EQ(start.files.hostMemory.size(), 1u);
    EXPECT_EQ(start.files.hostMemory[0].guestAddress, 0x100001000u);
    EXPECT_EQ(start.files.hostMemory[0].offset, 4096u);
    EXPECT_EQ(start.files.hostMemory[0].size, 8192u);
    EXPECT_EQ(start.plan.memoryBytes, 64u << 20);
  }
  bench.cfg(R"({"linux": "/k", "memory": ["64M", "100001000,8k,device"]})");
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-062")) << bench.refusal();
  bench.cfg(R"({"linux": "/k", "memory": ["64M", "100004000,8k,cached"]})");
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-062")) << bench.refusal();
}

TEST(Launch, TheFileOfPermittedMemoryIsLookedAtAgainAtEachLaunch) {
  Bench bench;
  bench.cfg(R"({"linux": "/k", "memory": ["64M", "100000000,8k,cached"]})");
  auto file = kj::str(bench.path.c_str(), "/window");
  bench.terms.hostMemory.add(
      HostMemoryWords{kj::str(file), 0x100000000, 8192, 0, HostMemoryWords::Kind::CACHED, false});
  EXPECT_TRUE(has(bench.refusal(), "TRP-cfg-018")) << bench.refusal();
  bench.write("window", std::string(4096, 'w'));
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-061")) << bench.refusal();
  bench.write("window", std::string(8192, 'w'));
  EXPECT_EQ(bench.refusal(), "");
}

TEST(Launch, DisksOfTheBundleComeBeforeThoseHandedOver) {
  Bench bench;
  bench.cfg(R"({"linux": "/k", "block": ["/one.img,ro", "/two.img,volatile"]})");
  bench.hand("mine", BlockMode::READ_WRITE, "mine.img", O_RDWR);
  auto start = bench.start();
  ASSERT_EQ(start.plan.disks.size(), 3u);
  EXPECT_STREQ(start.plan.disks[0].serial.cStr(), "block-0");
  EXPECT_TRUE(start.plan.disks[0].readOnly);
  EXPECT_STREQ(start.plan.disks[1].serial.cStr(), "block-1");
  EXPECT_TRUE(start.plan.disks[1].isVolatile);
  EXPECT_STREQ(start.plan.disks[2].serial.cStr(), "mine");
  EXPECT_FALSE(start.plan.disks[2].readOnly);
  EXPECT_EQ(start.files.disks[2].size, 512u);
  EXPECT_EQ(start.plan.disks[2].handed, -1);
}

TEST(Launch, TheIdOfAHandedFileIsTheGuestsToReadWhateverItIs) {
  Bench bench;
  bench.cfg(R"({"linux": "/k", "block": "/one.img,ro"})");
  bench.hand("block-0", BlockMode::READ_ONLY, "mine.img", O_RDONLY);
  bench.hand("a disk, \xc3\xa9", BlockMode::READ_ONLY, "mine.img", O_RDONLY);
  bench.hand("", BlockMode::READ_ONLY, "mine.img", O_RDONLY);
  auto start = bench.start();
  const char* ids[][2] = {{"block-0", "block-0"},
                          {"block-1", "block-0"},
                          {"block-2", "a disk, \xc3\xa9"},
                          {"block-3", "block-3"}};
  for (size_t i = 0; i < 4; i++) {
    EXPECT_STREQ(start.plan.disks[i].id.cStr(), ids[i][0]);
    EXPECT_STREQ(start.plan.disks[i].serial.cStr(), ids[i][1]);
  }
}

TEST(Launch, AHandedFileIsOpenedAnewSoThatItsOpenerCannotChangeIt) {
  Bench bench;
  bench.cfg(R"({"linux": "/k"})");
  bench.hand("mine", BlockMode::READ_ONLY, "mine.img", O_RDWR);
  int kept = fcntl(bench.fds[0], F_DUPFD_CLOEXEC, 3);
  auto start = bench.start();
  EXPECT_EQ(fcntl(start.files.disks[0].fd, F_GETFL) & O_ACCMODE, O_RDONLY);
  EXPECT_EQ(fcntl(kept, F_SETFL, O_APPEND), 0);
  EXPECT_EQ(fcntl(start.files.disks[0].fd, F_GETFL) & O_APPEND, 0);
  close(kept);
}

TEST(Launch, AHandedFileThatDoesNotFitItsModeIsRefused) {
  auto refused = [](BlockMode mode, const char* file, int flags) {
    Bench bench;
    bench.cfg(R"({"linux": "/k"})");
    mkfifo((bench.path + "/pipe").c_str(), 0600);
    bench.hand("x", mode, file, flags);
    return bench.refusal();
  };
  EXPECT_EQ(refused(BlockMode::READ_ONLY, "mine.img", O_RDONLY), "");
  EXPECT_EQ(refused(BlockMode::VOLATILE_WRITE, "mine.img", O_RDONLY), "");
  EXPECT_TRUE(has(refused(BlockMode::READ_WRITE, "mine.img", O_RDONLY), "TRP-rlm-010"));
  EXPECT_TRUE(has(refused(BlockMode::READ_ONLY, "mine.img", O_WRONLY), "TRP-rlm-010"));
  EXPECT_TRUE(has(refused(BlockMode::READ_ONLY, "mine.img", O_PATH), "TRP-rlm-010"));
  EXPECT_TRUE(has(refused(BlockMode::READ_ONLY, "pipe", O_RDONLY | O_NONBLOCK), "TRP-cfg-019"));
  EXPECT_TRUE(has(refused(BlockMode::READ_ONLY, "b", O_RDONLY), "TRP-cfg-019"));
  EXPECT_TRUE(has(refused(BlockMode::READ_ONLY, "../../dev/null", O_RDONLY), "TRP-cfg-019"));
  EXPECT_TRUE(has(refused(BlockMode(9), "mine.img", O_RDONLY), "TRP-rlm-010"));
}

TEST(Launch, AnIdIsAtMostTwentyBytes) {
  Bench bench;
  bench.cfg(R"({"linux": "/k"})");
  bench.hand("12345678901234567890", BlockMode::READ_ONLY, "mine.img", O_RDONLY);
  EXPECT_EQ(bench.refusal(), "");
  Bench other;
  other.cfg(R"({"linux": "/k"})");
  other.hand("123456789012345678901", BlockMode::READ_ONLY, "mine.img", O_RDONLY);
  EXPECT_TRUE(has(other.refusal(), "TRP-rlm-010"));
}

TEST(Launch, ADiskOfTheBundleLiesInIt) {
  Bench bench;
  std::filesystem::create_symlink("../mine.img", bench.path + "/b/out.img");
  bench.cfg(R"({"linux": "/k", "block": "/out.img"})");
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-008"));
  bench.cfg(R"({"linux": "/../mine.img"})");
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-008"));
}

TEST(Launch, TroupeJsonSpeaksTroupesOwnWords) {
  Bench bench;
  bench.cfg(R"({"linux": "/k", "virtio-console": "false"})");
  bench.typed(R"({"disk": [{"path": "/one.img", "id": "root", "serial": "S1", "ro": true}],
                  "memory": "32M", "cpus": 3, "cmdline": "+quiet", "rng": "rate=1M",
                  "on-reboot": "exit", "balloon": {"stats": false}, "cpu-mask": ["avx2"]})");
  auto start = bench.start();
  ASSERT_EQ(start.plan.disks.size(), 1u);
  EXPECT_STREQ(start.plan.disks[0].id.cStr(), "root");
  EXPECT_STREQ(start.plan.disks[0].serial.cStr(), "S1");
  EXPECT_EQ(start.plan.memoryBytes, 32u << 20);
  EXPECT_EQ(start.plan.cpus, 3u);
  EXPECT_STREQ(start.plan.cmdline.cStr(), "console=ttyS0 quiet");
  EXPECT_EQ(start.plan.rngRate.bytesPerSecond, 1u << 20);
  EXPECT_EQ(start.plan.onReboot, OnReboot::EXIT);
  EXPECT_EQ(start.plan.cpuMask.size(), 1u);
  EXPECT_EQ(start.plan.consoles.size(), 0u);
}

TEST(Launch, TheLauncherIsRightAgainstTroupeJson) {
  Bench bench;
  bench.typed(R"({"kernel": "/k", "initrd": "/one.img", "memory": "32M", "cpus": 3,
                  "rng": "off", "cmdline": "typed"})");
  auto config = bench.info.initGuestConfig();
  config.initCpus().setValue(1);
  config.setRamdiskPath("/two.img");
  config.initVirtioRng().setValue(true);
  config.setCmdline("launch");
  config.initMemory(1)[0].setSize(16 << 20);
  auto start = bench.start();
  EXPECT_EQ(start.plan.kernelKind, KernelKind::ANY);
  EXPECT_EQ(start.plan.cpus, 1u);
  EXPECT_STREQ(KJ_ASSERT_NONNULL(start.plan.initrd).cStr(), "/two.img");
  EXPECT_TRUE(start.plan.rng);
  EXPECT_EQ(start.plan.memoryBytes, 16u << 20);
  EXPECT_STREQ(start.plan.cmdline.cStr(), "typed launch");
}

TEST(Launch, WhatBothFilesOfABundleSayIsRefusedWithBothPlaces) {
  const char* pairs[][2] = {{R"("cpus": "2")", R"("cpus": 2)"},
                            {R"("memory": "1G")", R"("memory": "1G")"},
                            {R"("linux": "/k")", R"("kernel": "/k")"},
                            {R"("zircon": "/k")", R"("kernel": "/k")"},
                            {R"("ramdisk": "/k")", R"("initrd": "/k")"},
                            {R"("cmdline": "a")", R"("cmdline": "a")"},
                            {R"("block": "/one.img")", R"("disk": [{"path": "/two.img"}])"},
                            {R"("net": "2:0:0:0:0:1")", R"("net": [{"mac": "02:00:00:00:00:02"}])"},
                            {R"("virtio-rng": "true")", R"("rng": "on")"},
                            {R"("virtio-balloon": "true")", R"("balloon": {})"}};
  for (auto& pair : pairs) {
    Bench bench;
    bench.cfg(std::string("{") + pair[0] + "}");
    bench.typed(std::string("{") + pair[1] + "}");
    auto text = bench.refusal();
    EXPECT_TRUE(has(text, "TRP-rlm-005")) << pair[0] << text;
    EXPECT_TRUE(has(text, "b/guest.cfg") && has(text, "b/troupe.json")) << text;
  }
}

TEST(Launch, WhatIsNotABundlesToSayIsRefused) {
  for (auto text :
       {R"("name": "x")", R"("serial": "stdio")", R"("console": [])", R"("vsock": {})",
        R"("jail": "off")", R"("profile-dir": "/x")", R"("metrics": "/x")",
        R"("record": ["rng0=/x"])", R"("host-memory": ["/x,at=4G"])", R"("record-limit": "1M")",
        R"("net": [{"user": true}])", R"("net": [{"tap": "t0"}])", R"("net": [{"fd": "5"}])",
        R"("net": [{"pcap": "/x"}])"}) {
    Bench bench;
    bench.cfg(R"({"linux": "/k"})");
    bench.typed(std::string("{") + text + "}");
    EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-006")) << text << bench.refusal();
  }
}

TEST(Launch, WhatTroupeJsonMisspellsIsRefusedAsElsewhere) {
  Bench bench;
  bench.cfg(R"({"linux": "/k"})");
  bench.typed(R"({"cpu": 2})");
  EXPECT_TRUE(has(bench.refusal(), "TRP-cfg-009"));
  bench.typed(R"({"cpus": "2"})");
  EXPECT_TRUE(has(bench.refusal(), "TRP-cfg-010"));
  bench.typed(R"({"memory": "much"})");
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-003"));
}

TEST(Launch, DevicesThatDoNotExistAreRefused) {
  Bench wayland;
  wayland.cfg(R"({"linux": "/k"})");
  wayland.info.initWaylandDevice();
  EXPECT_TRUE(has(wayland.refusal(), "TRP-rlm-004"));
  Bench magma;
  magma.cfg(R"({"linux": "/k"})");
  magma.info.initMagmaDevice();
  EXPECT_TRUE(has(magma.refusal(), "TRP-rlm-004"));
}

TEST(Launch, ALongCommandLineIsRefused) {
  Bench bench;
  bench.cfg("{\"linux\": \"/k\", \"cmdline\": \"" + std::string(4096, 'a') + "\"}");
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-004"));
}

// What `troupe run` says, and what its VM is started from.
class OwnBench {
 public:
  explicit OwnBench(const std::string& json) {
    parseConfig(kj::StringPtr(json.c_str()), "words", words);
    order = orderOf(words);
  }

  GuestConfig::Reader guest() {
    return order.info->getRoot<LaunchInfo>().asReader().getGuestConfig();
  }
  VmStart start() {
    auto own = KJ_ASSERT_NONNULL(order.own)->getRoot<VmConfig>().asReader();
    return startOf(order.info->getRoot<LaunchInfo>().asReader(), own);
  }

  capnp::MallocMessageBuilder message;
  VmConfig::Builder words = message.initRoot<VmConfig>();
  LaunchOrder order;
};

kj::String shown(const RatePlan& rate) {
  return kj::str(rate.bytesPerSecond, "/", rate.burstBytes, "+", rate.itemsPerSecond, "/",
                 rate.burstItems);
}

kj::String shown(const kj::Maybe<kj::String>& text) {
  KJ_IF_MAYBE (known, text) return kj::str("\"", *known, "\"");
  return kj::str("none");
}

kj::String shown(const Endpoint& endpoint) {
  return kj::str(int(endpoint.kind), ":", endpoint.path);
}

// What a guest has, whoever asked for it and wherever it has its place.
std::string shownGuest(const VmPlan& plan) {
  kj::Vector<kj::String> lines;
  lines.add(kj::str("initrd ", shown(plan.initrd), ", tree ", shown(plan.deviceTree)));
  lines.add(kj::str("cmdline ", plan.cmdline, ", cpus ", plan.cpus));
  for (auto& region : ramOf(plan))
    lines.add(kj::str("ram ", region.guestAddress, "+", region.size, " @", region.fileOffset));
  for (auto& disk : plan.disks) {
    lines.add(kj::str("disk ", disk.path, " ", disk.id, " ", disk.serial, disk.readOnly,
                      disk.direct, disk.queues, " ", shown(disk.rate), " ", int(disk.format), " ",
                      disk.backing.size(), disk.isVolatile));
  }
  for (auto& net : plan.nets) {
    lines.add(kj::str("net ", int(net.backend), net.tap, net.fds, " ", troupe::macText(net.mac),
                      " ", net.mtu, " ", net.queues, net.forwards.size(), shown(net.pcap),
                      shown(net.rateIn), shown(net.rateOut), net.nospoof));
  }
  lines.add(kj::str("consoles ", plan.consoles.size(), ", rng ", plan.rng, shown(plan.rngRate)));
  lines.add(kj::str("mask ", plan.cpuMask, ", reboot ", int(plan.onReboot)));
  KJ_IF_MAYBE (balloon, plan.balloon) lines.add(kj::str("balloon ", balloon->stats));
  if (plan.vsock != nullptr) lines.add(kj::str("vsock"));
  return kj::strArray(lines, "\n").cStr();
}

// The same, and what its user alone says.
std::string shown(const VmPlan& plan) {
  kj::Vector<kj::String> lines;
  lines.add(kj::str("name ", plan.name, ", kernel ", plan.kernel, int(plan.kernelKind)));
  lines.add(
      kj::str("serial ", shown(plan.serial), ", jail ", int(plan.jail), shown(plan.profileDir)));
  for (auto& console : plan.consoles) {
    lines.add(kj::str("console ", shown(console.where), " ", console.name, console.plain,
                      int(console.size), console.columns, console.rows, console.replay));
  }
  KJ_IF_MAYBE (vsock, plan.vsock) {
    lines.add(
        kj::str("vsock ", vsock->cid.orDefault(0), shown(vsock->socket), vsock->forwards.size()));
  }
  lines.add(kj::str("metrics ", shown(plan.metrics), ", records up to ", plan.records.limitBytes));
  for (auto& record : plan.records.devices)
    lines.add(kj::str("record ", record.device, "=", record.path));
  for (auto& words : plan.hostMemory) {
    lines.add(kj::str("host memory ", words.path, words.at, "+", words.size, " ", words.offset,
                      int(words.kind), words.isShared));
  }
  return shownGuest(plan) + "\n" + kj::strArray(lines, "\n").cStr();
}

TEST(RunsOrder, HasAGuestConfigWithEveryField) {
  Bench folder;
  OwnBench bench("{\"kernel\": \"" + folder.path + "/b/k\"}");
  capnp::DynamicStruct::Reader guest = bench.guest();
  auto fields = guest.getSchema().getFields();
  EXPECT_EQ(fields.size(), 18u);
  for (auto field : fields)
    EXPECT_TRUE(guest.has(field)) << field.getProto().getName().cStr();
}

TEST(RunsOrder, LeavesTheDefaultsOfTroupeRunWhatTheyAreAndThoseOfRealmsAside) {
  Bench folder;
  OwnBench bench("{\"kernel\": \"" + folder.path + "/b/k\"}");
  auto start = bench.start();
  // As the end of `troupe run --help` has them.
  EXPECT_EQ(start.plan.cpus, 1u);
  EXPECT_EQ(start.plan.memoryBytes, 512u << 20);
  EXPECT_EQ(start.plan.placedRam.size(), 0u);
  EXPECT_TRUE(start.plan.rng);
  EXPECT_EQ(start.plan.serial.kind, Endpoint::Kind::STDIO);
  EXPECT_EQ(start.plan.consoles.size(), 0u);
  EXPECT_EQ(start.plan.nets.size(), 0u);
  EXPECT_EQ(start.plan.disks.size(), 0u);
  EXPECT_EQ(start.plan.name, "");
  EXPECT_STREQ(start.plan.cmdline.cStr(), "console=ttyS0");
  EXPECT_EQ(start.plan.kernelKind, KernelKind::ANY);
  EXPECT_TRUE(start.plan.initrd == nullptr && start.plan.deviceTree == nullptr);
  EXPECT_TRUE(start.plan.balloon == nullptr && start.plan.vsock == nullptr);
  EXPECT_EQ(start.notes.size(), 0u);
  EXPECT_EQ(shown(start.plan), shown(planVm(bench.words)));
}

TEST(RunsOrder, IsTheGuestOfABundleThatSaysTheSameEighteenThings) {
  Bench folder;
  OwnBench bench("{\"kernel\": \"" + folder.path + "/b/k\"}");
  folder.cfg(R"({"linux": "/k", "ramdisk": [], "dtb-overlay": [], "block": [],
                 "cmdline": "console=ttyS0", "cmdline-add": [], "memory": "512M", "interrupt": [],
                 "cpus": "1", "net": [], "default-net": "false", "virtio-balloon": "false",
                 "virtio-console": "false", "virtio-gpu": "false", "virtio-magma": "false",
                 "virtio-rng": "true", "virtio-vsock": "false"})");
  auto own = bench.start(), launched = folder.start();
  EXPECT_EQ(shownGuest(own.plan), shownGuest(launched.plan));
  EXPECT_EQ(launched.notes.size(), 0u);
  // So is one whose launcher says them with the very same GuestConfig, whatever the bundle says.
  Bench other;
  other.cfg(R"({"zircon": "/none", "ramdisk": "/none", "dtb-overlay": "/none", "cpus": "7",
                "virtio-balloon": "true", "virtio-console": "true", "virtio-vsock": "true"})");
  other.info.setGuestConfig(bench.guest());
  other.info.getGuestConfig().setKernelPath("/k");
  other.info.getGuestConfig().setCmdline("");
  auto theirs = other.start();
  EXPECT_STREQ(theirs.plan.cmdline.cStr(), " ");
  theirs.plan.cmdline = kj::heapString(own.plan.cmdline);
  EXPECT_EQ(shownGuest(own.plan), shownGuest(theirs.plan));
}

TEST(RunsOrder, KeepsEveryWordOfItsUser) {
  Bench folder;
  folder.write("memory", std::string(8192, 'm'));
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds));
  kj::AutoCloseFd ours(fds[0]), its(fds[1]);
  auto in = [&](const char* name) { return "\"" + folder.path + "/" + name + "\""; };
  auto to = [&](const char* kind, const char* name) {
    return std::string("\"") + kind + "=" + folder.path + "/" + name + "\"";
  };
  OwnBench bench(
      R"({"name": "mine", "cmdline": "+quiet", "cpus": 3, "memory": "64M", "rng": "rate=1M",
          "jail": "off", "on-reboot": "exit", "cpu-mask": ["avx2"], "record-limit": "1M",
          "balloon": {"stats": true}, "profile-dir": "/profiles", "kernel": )" +
      in("b/k") + ", \"initrd\": " + in("b/one.img") + ", \"serial\": " + to("file", "serial") +
      ", \"metrics\": " + in("metrics") + ", \"record\": [" + to("rng0", "rng.rec") +
      "], \"host-memory\": [\"" + folder.path + "/memory,at=4G,size=4K,offset=4K,shared\"], " +
      R"("vsock": {"cid": 77, "socket": )" + in("vsock") + ", \"forward\": [\"22:" + folder.path +
      R"(/ssh"]}, "console": [{"name": "c", "size": "80x25", "replay": "off", "where": )" +
      to("socket", "console") + R"(}, {"port": true, "where": )" + to("file", "port") +
      R"(}], "net": [{"mac": "02:00:00:00:00:09", "mtu": 1400, "rate": "1M", "nospoof": true,
          "fd": ")" +
      std::to_string(its.get()) + R"("}], "disk": [{"path": )" + in("b/one.img") +
      R"(, "ro": true, "id": "root", "serial": "S", "queues": 2, "rate": "1M"}, {"path": )" +
      in("b/two.img") + R"(, "volatile": true}]})");
  // A key that is new belongs into the words above.
  capnp::DynamicStruct::Reader words = bench.words.asReader();
  for (auto field : words.getSchema().getFields())
    EXPECT_TRUE(words.has(field, capnp::HasMode::NON_DEFAULT)) << field.getProto().getName().cStr();
  auto start = bench.start();
  EXPECT_EQ(shown(start.plan), shown(planVm(bench.words)));
  EXPECT_EQ(start.plan.kernelKind, KernelKind::ANY);
  EXPECT_EQ(start.files.disks.size(), 2u);
  EXPECT_EQ(start.files.hostMemory[0].size, 4096u);
}

TEST(RunsOrder, MoreMemoryThanABundleMayPlaceIsAsMuchAsTheHostHas) {
  Bench folder;
  OwnBench bench("{\"memory\": \"1T\", \"kernel\": \"" + folder.path + "/b/k\"}");
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { bench.start(); })) {
    EXPECT_FALSE(has(exception->getDescription().cStr(), "TRP-rlm-"))
        << exception->getDescription().cStr();
  }
}

// A field of GuestConfig, and what becomes of it.
struct Field {
  const char* name;
  kj::Function<void(GuestConfig::Builder)> say;
  kj::Function<bool(const VmStart&)> isSeen;  // true with it and false without
  bool isRefused = false;                     // TRP-rlm-004
};

TEST(Launch, EachFieldOfAGuestConfigIsSeenInTheGuestOrRefused) {
  kj::byte mac[] = {2, 0, 0, 0, 0, 1};
  auto never = [](const VmStart&) { return false; };
  Field fields[] = {
      {"kernel", [](auto c) { c.initKernel().setValue(Kernel::LINUX); },
       [](auto& s) { return s.plan.kernelKind == KernelKind::LINUX; }},
      {"kernelPath", [](auto c) { c.setKernelPath("/one.img"); },
       [](auto& s) { return s.files.kernel.size == 1024; }},
      {"ramdiskPath", [](auto c) { c.setRamdiskPath("/one.img"); },
       [](auto& s) { return s.files.initrd != nullptr; }},
      {"dtbOverlayPath", [](auto c) { c.setDtbOverlayPath("/one.img"); },
       [](auto& s) { return s.files.deviceTree != nullptr; }},
      {"blockDevices", [](auto c) { c.initBlockDevices(1)[0].setPath("/one.img"); },
       [](auto& s) { return s.files.disks.size() == 1; }},
      {"cmdline", [](auto c) { c.setCmdline("word"); },
       [](auto& s) { return s.plan.cmdline == " word"; }},
      {"cmdlineAdd", [](auto c) { c.initCmdlineAdd(1).set(0, "added"); },
       [](auto& s) { return s.plan.cmdline == " added"; }},
      {"memory", [](auto c) { c.initMemory(1)[0].setSize(64 << 20); },
       [](auto& s) { return s.plan.memoryBytes == 64 << 20; }},
      {"interrupts", [](auto c) { c.initInterrupts(1).set(0, 33); }, never, true},
      {"cpus", [](auto c) { c.initCpus().setValue(77); },
       [](auto& s) { return s.plan.cpus == 77; }},
      {"netDevices",
       [&](auto c) { c.initNetDevices(1)[0].initMacAddress().setOctets(kj::arrayPtr(mac, 6)); },
       [](auto& s) { return s.plan.nets.size() == 2 && s.plan.nets[0].mac[5] == 1; }},
      {"defaultNet", [](auto c) { c.initDefaultNet().setValue(false); },
       [](auto& s) { return s.plan.nets.size() == 0; }},
      {"virtioBalloon", [](auto c) { c.initVirtioBalloon().setValue(false); },
       [](auto& s) { return s.plan.balloon == nullptr; }},
      {"virtioConsole", [](auto c) { c.initVirtioConsole().setValue(false); },
       [](auto& s) { return s.plan.consoles.size() == 0; }},
      // Off it is anyway; who says so is not told.
      {"virtioGpu", [](auto c) { c.initVirtioGpu().setValue(false); },
       [](auto& s) { return s.notes.size() == 0; }},
      {"virtioGpu", [](auto c) { c.initVirtioGpu().setValue(true); }, never, true},
      {"virtioMagma", [](auto c) { c.initVirtioMagma().setValue(true); }, never, true},
      {"virtioRng", [](auto c) { c.initVirtioRng().setValue(false); },
       [](auto& s) { return !s.plan.rng; }},
      {"virtioVsock", [](auto c) { c.initVirtioVsock().setValue(false); },
       [](auto& s) { return s.plan.vsock == nullptr && s.files.vsock == nullptr; }},
  };
  auto prepare = [](Bench& bench) {
    bench.cfg("{}");
    bench.terms.net.kind = NetChoice::Kind::USER;
    auto config = bench.info.initGuestConfig();
    config.setKernelPath("/k");
    return config;
  };
  std::set<std::string> tried;
  for (auto& field : fields) {
    Bench without, with;
    prepare(without);
    EXPECT_FALSE(field.isSeen(without.start())) << field.name;
    field.say(prepare(with));
    if (field.isRefused) {
      EXPECT_TRUE(has(with.refusal(), "TRP-rlm-004")) << field.name;
    } else {
      EXPECT_TRUE(field.isSeen(with.start())) << field.name;
    }
    tried.insert(field.name);
  }
  for (auto field : capnp::Schema::from<GuestConfig>().getFields())
    EXPECT_EQ(tried.count(field.getProto().getName().cStr()), 1u)
        << field.getProto().getName().cStr();
}

TEST(Launch, AnEmptyPathOfTheLaunchersIsNoneWhateverTheBundleHas) {
  Bench bench;
  bench.cfg(R"({"linux": "/k", "ramdisk": "/absent", "dtb-overlay": "/absent"})");
  EXPECT_TRUE(has(bench.refusal(), "TRP-cfg-018"));
  auto config = bench.info.initGuestConfig();
  config.setRamdiskPath("");
  config.setDtbOverlayPath("");
  EXPECT_EQ(bench.refusal(), "");
  config.setKernelPath("");
  EXPECT_TRUE(has(bench.refusal(), "TRP-rlm-004"));
}

TEST(Launch, AnOddAmountOfMemoryLiesWhereItWasSaid) {
  Bench bench;
  bench.cfg(R"({"linux": "/k", "memory": "2052k"})");
  auto start = bench.start();
  ASSERT_EQ(start.plan.placedRam.size(), 1u);
  EXPECT_EQ(start.plan.placedRam[0].size, 2052u << 10);
}

TEST(RealmNet, IsOneOfFourChoices) {
  EXPECT_EQ(parseNetChoice("none").kind, NetChoice::Kind::NONE);
  EXPECT_EQ(parseNetChoice("user").kind, NetChoice::Kind::USER);
  auto bridge = parseNetChoice("bridge=br0");
  EXPECT_EQ(bridge.kind, NetChoice::Kind::BRIDGE);
  EXPECT_STREQ(bridge.name.cStr(), "br0");
  EXPECT_EQ(parseNetChoice("tap-prefix=vm").kind, NetChoice::Kind::TAP);
  for (auto text : {"", "users", "bridge=", "bridge=a/b", "tap-prefix=", "tap-prefix=averylongname",
                    "bridge=averyverylongname", "none "}) {
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { parseNetChoice(text); })) {
      EXPECT_TRUE(has(exception->getDescription().cStr(), "TRP-rlm-011")) << text;
    } else {
      ADD_FAILURE() << text;
    }
  }
}

TEST(RealmNet, ALinkThatIsNotThereIsRefused) {
  for (auto net : {"bridge=no-such-br", "tap-prefix=no-such-"}) {
    Bench bench;
    bench.cfg(R"({"linux": "/k"})");
    bench.terms.net = parseNetChoice(net);
    EXPECT_TRUE(has(bench.refusal(), "TRP-net-004")) << net;
  }
}

TEST(RealmNet, EachNetworkOfTheGuestHasALinkTheDefaultOneLast) {
  Bench bench;
  bench.cfg(R"({"linux": "/k", "net": "2:0:0:0:0:1"})");
  bench.terms.net.kind = NetChoice::Kind::USER;
  auto start = bench.start();
  ASSERT_EQ(start.plan.nets.size(), 2u);
  EXPECT_STREQ(macText(start.plan.nets[0].mac).cStr(), "02:00:00:00:00:01");
  EXPECT_STREQ(macText(start.plan.nets[1].mac).cStr(), "02:1a:11:00:01:00");
}

TEST(MacLease, AnAddressBelongsToOneGuestOfALink) {
  Bench bench;  // for its run-time folder, unless root runs this
  auto link = kj::str("br-test-", getpid());
  kj::Maybe<kj::Own<MacLease>> one = kj::heap<MacLease>(link, "02:1a:11:00:01:00");
  auto taken = [&](kj::StringPtr bridge, kj::StringPtr mac) {
    return kj::runCatchingExceptions([&] { MacLease(bridge, mac); }) != nullptr;
  };
  EXPECT_TRUE(taken(link, "02:1a:11:00:01:00"));
  EXPECT_FALSE(taken(link, "02:1a:11:00:01:01"));
  EXPECT_FALSE(taken(kj::str(link, "b"), "02:1a:11:00:01:00"));
  one = nullptr;
  EXPECT_FALSE(taken(link, "02:1a:11:00:01:00"));
}

}  // namespace
}  // namespace troupe::realm
