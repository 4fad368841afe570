// Who is right when launcher, guest.cfg and defaults speak of the same thing.
#include "vmm/realm/guest_draft.h"

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/function.h>

#include <string>

#include "vmm/words/user_error.h"

namespace troupe::realm {
namespace {

constexpr GuestDraft::Host HOST{4, false, false};

struct Launch {
  capnp::MallocMessageBuilder message;
  GuestConfig::Builder config = message.initRoot<GuestConfig>();
};

GuestPlan planned(Launch& launch, kj::StringPtr cfg, GuestDraft::Host host = HOST) {
  GuestDraft draft(launch.config.asReader());
  draft.merge(cfg, "b/guest.cfg");
  return draft.finish(host);
}

GuestPlan planned(kj::StringPtr cfg) {
  Launch launch;
  return planned(launch, cfg);
}

template <typename Call>
std::string refusalOf(Call&& call) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { call(); })) {
    return exception->getDescription().cStr();
  }
  return "";
}

std::string refusal(kj::StringPtr cfg) {
  return refusalOf([&] { planned(cfg); });
}

bool isOn(const GuestPlan& plan, Toggle toggle) {
  return plan.toggles[size_t(toggle)];
}

TEST(GuestDraft, DefaultsSpeakForWhatNobodySaid) {
  auto plan = planned(R"({"linux": "/bzImage"})");
  EXPECT_TRUE(plan.kernel == Kernel::LINUX);
  EXPECT_STREQ(plan.kernelPath.cStr(), "/bzImage");
  EXPECT_TRUE(plan.ramdiskPath == nullptr);
  EXPECT_EQ(plan.cmdline, "");
  ASSERT_EQ(plan.ram.size(), 1u);
  EXPECT_EQ(plan.ram[0].guestAddress, 0u);
  EXPECT_EQ(plan.ram[0].size, 1u << 30);
  EXPECT_EQ(plan.cpus, 4);
  ASSERT_EQ(plan.nets.size(), 1u);
  EXPECT_STREQ(macText(plan.nets[0]).cStr(), "02:1a:11:00:01:00");
  for (auto toggle : {Toggle::BALLOON, Toggle::CONSOLE, Toggle::RNG, Toggle::VSOCK})
    EXPECT_TRUE(isOn(plan, toggle)) << int(toggle);
}

TEST(GuestDraft, AKernelOfAnotherSortIsZircon) {
  EXPECT_TRUE(planned(R"({"zircon": "/zbi"})").kernel == Kernel::ZIRCON);
  Launch launch;
  launch.config.setKernelPath("/zbi");
  EXPECT_TRUE(planned(launch, "{}").kernel == Kernel::ZIRCON);
}

TEST(GuestDraft, OfTwoKernelsTheFirstKeepsPathAndSort) {
  auto plan = planned(R"({"zircon": "/zbi", "linux": "/bzImage"})");
  EXPECT_TRUE(plan.kernel == Kernel::ZIRCON);
  EXPECT_STREQ(plan.kernelPath.cStr(), "/zbi");
}

TEST(GuestDraft, ATextDoesNotReplaceWhatTheLauncherSaid) {
  Launch launch;
  launch.config.setKernelPath("/mine");
  launch.config.initKernel().setValue(Kernel::LINUX);
  launch.config.setRamdiskPath("/initrd");
  launch.config.initCpus().setValue(2);
  launch.config.initVirtioRng().setValue(false);
  launch.config.initDefaultNet().setValue(false);
  auto plan = planned(launch, R"({"zircon": "/zbi", "ramdisk": "/other", "cpus": "8",
                                  "virtio-rng": "true", "default-net": "true"})");
  EXPECT_TRUE(plan.kernel == Kernel::LINUX);
  EXPECT_STREQ(plan.kernelPath.cStr(), "/mine");
  EXPECT_STREQ(KJ_ASSERT_NONNULL(plan.ramdiskPath).cStr(), "/initrd");
  EXPECT_EQ(plan.cpus, 2);
  EXPECT_FALSE(isOn(plan, Toggle::RNG));
  EXPECT_EQ(plan.nets.size(), 0u);
}

TEST(GuestDraft, OfAListForOneValueTheLastWinsEvenOverTheLauncher) {
  Launch launch;
  launch.config.initCpus().setValue(2);
  EXPECT_EQ(planned(launch, R"({"linux": "/k", "cpus": ["3", "5"]})").cpus, 5);
}

TEST(GuestDraft, ListsAreAppendedTheLaunchersFirst) {
  Launch launch;
  auto memory = launch.config.initMemory(1);
  memory[0].setBase(0x100000000);
  memory[0].setSize(4096);
  auto block = launch.config.initBlockDevices(1)[0];
  block.setPath("/first");
  block.setMode(BlockMode::READ_ONLY);
  kj::byte mac[] = {2, 0, 0, 0, 0, 1};
  launch.config.initNetDevices(1)[0].initMacAddress().setOctets(kj::arrayPtr(mac, 6));
  auto plan = planned(launch, R"({"linux": "/k", "memory": "2M", "block": ["/a,qcow", "/b"],
                                  "net": "2:0:0:0:0:2"})");
  ASSERT_EQ(plan.ram.size(), 2u);
  EXPECT_EQ(plan.ram[0].size, 2u << 20);
  EXPECT_EQ(plan.ram[1].guestAddress, 0x100000000u);
  ASSERT_EQ(plan.blocks.size(), 3u);
  EXPECT_STREQ(plan.blocks[0].path.cStr(), "/first");
  EXPECT_EQ(plan.blocks[0].mode, BlockMode::READ_ONLY);
  EXPECT_STREQ(plan.blocks[1].path.cStr(), "/a");
  EXPECT_EQ(plan.blocks[1].format, BlockFormat::QCOW);
  ASSERT_EQ(plan.nets.size(), 3u);
  EXPECT_STREQ(macText(plan.nets[1]).cStr(), "02:00:00:00:00:02");
  EXPECT_STREQ(macText(plan.nets[2]).cStr(), "02:1a:11:00:01:00");
}

TEST(GuestDraft, TheCommandLineBeginsWithTheFilesAndGoesOnWithTheLaunchers) {
  Launch launch;
  launch.config.setCmdline("launch");
  auto add = launch.config.initCmdlineAdd(2);
  add.set(0, "one");
  add.set(1, "two");
  EXPECT_EQ(
      planned(launch, R"({"linux": "/k", "cmdline": "file", "cmdline-add": ["a", "b"]})").cmdline,
      "file launch one two a b");
}

TEST(GuestDraft, WithoutABaseTheCommandLineBeginsWithASpace) {
  Launch launch;
  launch.config.setCmdline("launch");
  EXPECT_EQ(planned(launch, R"({"linux": "/k"})").cmdline, " launch");
}

TEST(GuestDraft, AValueThatIsNoTextIsRefused) {
  for (auto cfg : {R"({"cpus": 4})", R"({"virtio-rng": true})", R"({"linux": null})",
                   R"({"linux": {"path": "/k"}})", R"({"block": [["/a"]]})", R"({"block": [4]})",
                   R"({"cmdline": "a\u0000b"})", R"([])", R"("linux")"})
    EXPECT_NE(refusal(cfg).find("TRP-rlm-001: b/guest.cfg"), std::string::npos) << cfg;
}

TEST(GuestDraft, WhatIsNoJsonIsRefusedWithItsPlace) {
  EXPECT_NE(refusal("{\n \"linux\": oops}").find("line 2, column 11"), std::string::npos);
  EXPECT_NE(refusal("").find("TRP-cfg-008"), std::string::npos);
}

TEST(GuestDraft, AnUnknownKeyIsRefusedWithTheNearestOne) {
  auto text = refusal(R"({"linux": "/k", "virtio-ballon": "true"})");
  EXPECT_NE(text.find("TRP-rlm-002: b/guest.cfg: unknown key \"virtio-ballon\"; did you mean "
                      "virtio-balloon?"),
            std::string::npos)
      << text;
}

TEST(GuestDraft, AValueOfTheWrongFormIsRefusedEvenWhereItWouldNotCount) {
  EXPECT_NE(refusal(R"({"linux": "/k", "cpus": "0"})")
                .find("TRP-rlm-003: b/guest.cfg: \"cpus\" is \"0\"; it has to be a number"),
            std::string::npos);
  Launch launch;
  launch.config.initCpus().setValue(2);
  EXPECT_NE(refusalOf([&] { planned(launch, R"({"cpus": "many"})"); }).find("TRP-rlm-003"),
            std::string::npos);
  for (auto cfg : {R"({"memory": "1T"})", R"({"block": "ro"})", R"({"net": "1:2:3"})",
                   R"({"virtio-rng": "yes"})", R"({"linux": ""})", R"({"interrupt": "x"})"})
    EXPECT_NE(refusal(cfg).find("TRP-rlm-003"), std::string::npos) << cfg;
}

TEST(GuestDraft, WhatTheLauncherSaysIsCheckedToo) {
  auto whenFilled = [](kj::Function<void(GuestConfig::Builder)> fill) {
    Launch launch;
    fill(launch.config);
    return refusalOf([&] { GuestDraft draft(launch.config.asReader()); });
  };
  auto has = [](const std::string& text) { return text.find("TRP-rlm-003") != std::string::npos; };
  EXPECT_TRUE(has(whenFilled([](auto c) { c.initCpus().setValue(0); })));
  EXPECT_TRUE(has(whenFilled([](auto c) { c.initBlockDevices(1); })));
  EXPECT_TRUE(has(whenFilled([](auto c) { c.initNetDevices(1); })));
  EXPECT_TRUE(has(whenFilled([](auto c) { c.initKernel().setValue(Kernel(7)); })));
  EXPECT_TRUE(has(whenFilled([](auto c) { c.initMemory(1)[0].setPolicy(MemoryPolicy(3)); })));
}

TEST(GuestDraft, AGuestWithoutAKernelIsRefused) {
  EXPECT_NE(refusal("{}").find("TRP-rlm-004"), std::string::npos);
}

TEST(GuestDraft, MemoryThatCannotBeIsRefused) {
  for (auto memory :
       {"0", "100,4k", "1000,100", "BFFFFF000,8k", "FFFFFFFFFFFFF000,8k", "48G\",\"1G",
        "0,1G\",\"3FFFF000,4k", "1G\",\"1G", "0,1G,cached", "E0000000,1M,device", "40000000,1G",
        "1M", "2M\",\"BFFFF000,8k", "2M\",\"D0000000,4k", "4G\",\"100000000,4k"}) {
    auto cfg = kj::str("{\"linux\": \"/k\", \"memory\": [\"", memory, "\"]}");
    EXPECT_NE(refusal(cfg).find("TRP-rlm-004"), std::string::npos) << memory;
  }
  for (auto memory : {"48G", "0,1G\",\"40000000,4k", "40000000,4k\",\"1G", "2M\",\"100000000,4k",
                      "2M\",\"BFFFF000,4k"}) {
    auto cfg = kj::str("{\"linux\": \"/k\", \"memory\": [\"", memory, "\"]}");
    EXPECT_EQ(refusal(cfg), "") << memory;
  }
}

TEST(GuestDraft, MemoryOfTheHostsLiesWhereItSaysBesideTheGuestsOwn) {
  Launch launch;
  auto plan = planned(launch, R"({"linux": "/k", "memory": ["64M", "200000000,8k,device",
                                                            "100000000,1M,cached"]})");
  ASSERT_EQ(plan.ram.size(), 1u);
  ASSERT_EQ(plan.hostMemory.size(), 2u);
  EXPECT_EQ(plan.hostMemory[0].guestAddress, 0x100000000u);
  EXPECT_EQ(plan.hostMemory[0].size, 1u << 20);
  EXPECT_EQ(plan.hostMemory[0].policy, MemoryPolicy::HOST_CACHED);
  EXPECT_EQ(plan.hostMemory[1].policy, MemoryPolicy::HOST_DEVICE);
}

TEST(GuestDraft, MemoryOfTheHostsThatCannotBeThereIsRefused) {
  for (auto memory :
       {"C0000000,4k,device", "BFFFF000,8k,cached", "100000001,4k,cached", "100000000,100,cached",
        "100000000,0,device", "BFFFFF000,8k,cached", "0,4k,cached", "3FFF000,8k,cached",
        "100000000,8k,cached\",\"100001000,4k,device", "100000000,8k,cached\",\"100001000,4k"}) {
    auto cfg = kj::str("{\"linux\": \"/k\", \"memory\": [\"64M\", \"", memory, "\"]}");
    EXPECT_NE(refusal(cfg).find("TRP-rlm-004"), std::string::npos) << memory;
  }
  // Nine of them, and none of the guest's own.
  kj::Vector<kj::String> many;
  for (kj::uint i = 0; i < 9; i++)
    many.add(kj::str("\"10000", i, "000,4k,cached\""));
  auto nine = kj::str("{\"linux\": \"/k\", \"memory\": [\"64M\", ", kj::strArray(many, ", "), "]}");
  EXPECT_NE(refusal(nine).find("at most 8"), std::string::npos) << refusal(nine);
  auto alone = refusal("{\"linux\": \"/k\", \"memory\": \"100000000,1G,cached\"}");
  EXPECT_NE(alone.find("no memory region of the guest's own"), std::string::npos) << alone;
}

TEST(GuestDraft, AMillionWordsAreRefusedBeforeTheyAreJoined) {
  Launch launch;
  auto words = launch.config.initCmdlineAdd(1 << 20);
  for (uint i = 0; i < words.size(); i += 4096)
    words.set(i, "word");
  EXPECT_NE(refusalOf([&] { planned(launch, R"({"linux": "/k"})"); }).find("TRP-rlm-004"),
            std::string::npos);
}

TEST(GuestDraft, MoreNetworksThanAVmHasAreRefused) {
  Launch launch;
  kj::byte mac[] = {2, 0, 0, 0, 0, 0};
  auto nets = launch.config.initNetDevices(8);
  for (auto net : nets) {
    mac[5]++;
    net.initMacAddress().setOctets(kj::arrayPtr(mac, 6));
  }
  EXPECT_NE(refusalOf([&] { planned(launch, R"({"linux": "/k"})"); }).find("TRP-rlm-004"),
            std::string::npos);
  EXPECT_EQ(refusalOf([&] { planned(launch, R"({"linux": "/k", "default-net": "false"})"); }), "");
}

TEST(GuestDraft, AnInterruptOfTheHostIsRefused) {
  EXPECT_NE(refusal(R"({"linux": "/k", "interrupt": "33"})").find("TRP-rlm-004"),
            std::string::npos);
}

TEST(GuestDraft, AMacAddressBelongsToOneDevice) {
  for (auto net :
       {"02:1a:11:00:01:00", "2:0:0:0:0:1\", \"02:00:00:00:00:01", "1:0:0:0:0:0", "0:0:0:0:0:0"}) {
    auto cfg = kj::str("{\"linux\": \"/k\", \"net\": [\"", net, "\"]}");
    EXPECT_NE(refusal(cfg).find("TRP-rlm-004"), std::string::npos) << net;
  }
  EXPECT_EQ(refusal(R"({"linux": "/k", "net": "02:1a:11:00:01:00", "default-net": "false"})"), "");
}

TEST(GuestDraft, ADeviceThatDoesNotExistIsOffUnlessAskedFor) {
  auto plan = planned(R"({"linux": "/k"})");
  EXPECT_FALSE(isOn(plan, Toggle::GPU));
  EXPECT_FALSE(isOn(plan, Toggle::MAGMA));
  ASSERT_EQ(plan.notes.size(), 1u);
  EXPECT_NE(std::string(plan.notes[0].cStr()).find("virtio-gpu is off"), std::string::npos);
  for (auto key : {"virtio-gpu", "virtio-magma"}) {
    auto cfg = kj::str("{\"linux\": \"/k\", \"", key, "\": \"\"}");
    EXPECT_NE(refusal(cfg).find("TRP-rlm-004"), std::string::npos) << key;
  }
  Launch launch;
  auto rich = planned(launch, R"({"linux": "/k", "virtio-magma": "true"})", {4, true, true});
  EXPECT_TRUE(isOn(rich, Toggle::GPU));
  EXPECT_TRUE(isOn(rich, Toggle::MAGMA));
  EXPECT_EQ(rich.notes.size(), 0u);
}

TEST(GuestDraft, AWordThatWasPassedOverIsNoted) {
  auto plan = planned(R"({"linux": "/k", "virtio-gpu": "false", "block": "/a,snapshot"})");
  ASSERT_EQ(plan.notes.size(), 1u);
  EXPECT_NE(std::string(plan.notes[0].cStr()).find("\"snapshot\""), std::string::npos);
}

TEST(GuestDraft, OfManyWordsThatArePassedOverFewAreTold) {
  std::string words = "/disk.img";
  for (int i = 0; i < 1000; i++)
    words += ",word" + std::to_string(i);
  auto plan = planned(kj::str(R"({"linux": "/bzImage", "block": ")", words.c_str(), R"("})"));
  EXPECT_LT(plan.notes.size(), 20u);
  EXPECT_STREQ(plan.notes[16].cStr(), "more words of block devices are passed over");
}

}  // namespace
}  // namespace troupe::realm
