// What of a LaunchInfo and a bundle a VM starts from.
#include "vmm/realm/launch.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "vmm/mac_lease.h"

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
        R"("record": ["rng0=/x"])", R"("record-limit": "1M")", R"("net": [{"user": true}])",
        R"("net": [{"tap": "t0"}])", R"("net": [{"fd": "5"}])", R"("net": [{"pcap": "/x"}])"}) {
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
