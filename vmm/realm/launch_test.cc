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

#include "vmm/realm/testing/launch_bench.h"

namespace troupe::realm {
namespace {

using testing::Bench;
using testing::has;

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

}  // namespace
}  // namespace troupe::realm
