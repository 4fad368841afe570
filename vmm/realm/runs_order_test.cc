// That `troupe run` launches its VM as a realm does, with every word of its user.
#include <capnp/dynamic.h>
#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include <string>

#include "vmm/config/config_file.h"
#include "vmm/realm/testing/launch_bench.h"

namespace troupe::realm {
namespace {

using testing::Bench;
using testing::has;

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

}  // namespace
}  // namespace troupe::realm
