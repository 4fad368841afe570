#include "vmm/config/net_option.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

#include "vmm/config/net_plan.h"

namespace troupe {
namespace {

kj::Array<NetPlan> planned(std::initializer_list<kj::StringPtr> texts,
                           kj::StringPtr name = "vm"_kj) {
  capnp::MallocMessageBuilder message;
  auto nets = message.initRoot<VmConfig>().initNets(texts.size());
  uint32_t index = 0;
  for (auto text : texts)
    parseNet(text, nets[index++]);
  return planNets(nets.asReader(), name);
}

// The first line of the error; "" when there is none.
std::string errorOf(std::initializer_list<kj::StringPtr> texts) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { planned(texts); })) {
    std::string description = exception->getDescription().cStr();
    return description.substr(0, description.find('\n'));
  }
  return "";
}

std::string codeOf(kj::StringPtr text) {
  return errorOf({text}).substr(0, 11);
}

TEST(NetOption, EveryPartReachesThePlan) {
  auto nets =
      planned({"tap=t0,mac=52:54:00:Ab:cD:eF,mtu=9000,queues=4,pcap=a,,b.pcap,"
               "rate=1M/8M+500fps,rate-out=2M,nospoof"});
  auto& plan = nets[0];
  EXPECT_EQ(plan.backend, NetPlan::Backend::TAP);
  EXPECT_STREQ(plan.tap.cStr(), "t0");
  EXPECT_STREQ(macText(plan.mac).cStr(), "52:54:00:ab:cd:ef");
  EXPECT_EQ(plan.mtu, 9000);
  EXPECT_EQ(plan.queues, 4);
  EXPECT_STREQ(KJ_ASSERT_NONNULL(plan.pcap).cStr(), "a,b.pcap");
  EXPECT_EQ(plan.rateIn.bytesPerSecond, 1u << 20);
  EXPECT_EQ(plan.rateIn.burstBytes, 8u << 20);
  EXPECT_EQ(plan.rateIn.itemsPerSecond, 500u);
  EXPECT_EQ(plan.rateOut.bytesPerSecond, 2u << 20);
  EXPECT_EQ(plan.rateOut.itemsPerSecond, 0u);
  EXPECT_TRUE(plan.nospoof);
}

TEST(NetOption, WhatIsNotSaidHasItsDefault) {
  auto nets = planned({"tap=t0"});
  EXPECT_EQ(nets[0].mtu, 0);
  EXPECT_EQ(nets[0].queues, 1);
  EXPECT_EQ(nets[0].rateIn.bytesPerSecond, 0u);
  EXPECT_TRUE(nets[0].pcap == nullptr);
  EXPECT_FALSE(nets[0].nospoof);
}

TEST(NetOption, EachFdIsAPairOfQueues) {
  auto nets = planned({"fd=5:6:7"});
  EXPECT_EQ(nets[0].queues, 3);
  EXPECT_EQ(nets[0].fds.size(), 3u);
  EXPECT_EQ(nets[0].fds[2], 7);
  EXPECT_EQ(codeOf("fd=5:6,queues=3"), "TRP-net-001");
  for (auto text :
       {"fd=", "fd=x", "fd=2", "fd=0", "fd=-1", "fd=5:5", "fd=5:", "fd=:5", "fd=99999999999"}) {
    EXPECT_EQ(codeOf(text), "TRP-net-001") << text;
  }
}

TEST(NetOption, AnAddressIsTheSameForTheSameNameAndPlace) {
  auto one = planned({"tap=a", "tap=b"}), again = planned({"user", "tap=c"});
  EXPECT_STREQ(macText(one[0].mac).cStr(), macText(again[0].mac).cStr());
  EXPECT_STREQ(macText(one[1].mac).cStr(), macText(again[1].mac).cStr());
  EXPECT_STRNE(macText(one[0].mac).cStr(), macText(one[1].mac).cStr());
  EXPECT_STRNE(macText(one[0].mac).cStr(), macText(planned({"tap=a"}, "other"_kj)[0].mac).cStr());
  for (auto& net : one)
    EXPECT_EQ(net.mac[0] & 3, 2) << "locally administered, one host's";
}

TEST(NetOption, AVmWithoutANameGetsAnAddressThatNoOtherHas) {
  EXPECT_STRNE(macText(planned({"tap=a"}, ""_kj)[0].mac).cStr(),
               macText(planned({"tap=a"}, ""_kj)[0].mac).cStr());
}

TEST(NetOption, MalformedAddressesAreRefused) {
  for (auto mac : {"52:54:00:12:34", "52:54:00:12:34:5", "52-54-00-12-34-56", "52:54:00:12:34:5g",
                   "52:54:00:12:34:56:78", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff",
                   "00:00:00:00:00:00", "hello"}) {
    EXPECT_EQ(codeOf(kj::str("tap=t0,mac=", mac)), "TRP-net-002") << mac;
  }
  EXPECT_EQ(codeOf("tap=t0,mac="), "TRP-net-001");
}

TEST(NetOption, TwoDevicesWithOneAddressAreRefused) {
  EXPECT_EQ(errorOf({"tap=a,mac=52:54:00:12:34:56", "user,mac=52:54:00:12:34:56"}),
            "TRP-net-002: --net tap=a and --net user have the same MAC address 52:54:00:12:34:56; "
            "each network device has one of its own");
}

TEST(NetOption, OneBackendHasToBeSaid) {
  EXPECT_EQ(codeOf(""), "TRP-net-001");
  EXPECT_EQ(codeOf("mtu=1500"), "TRP-net-001");
  EXPECT_EQ(codeOf("tap=a,user"), "TRP-net-001");
  EXPECT_EQ(codeOf("tap=a,fd=5"), "TRP-net-001");
  EXPECT_EQ(codeOf("user,user"), "TRP-cfg-005");
}

TEST(NetOption, MalformedPartsAreRefused) {
  EXPECT_EQ(errorOf({"tpa=t0"}).substr(0, 68),
            "TRP-net-001: --net \"tpa=t0\": unknown part \"tpa=t0\"; did you mean tap");
  for (auto text : {"tap",
                    "tap=",
                    "tap=0123456789abcdef",
                    "tap=a/b",
                    "tap=.",
                    "tap=a b",
                    "tap=a:b",
                    "user=on",
                    "tap=a,mtu",
                    "tap=a,mtu=67",
                    "tap=a,mtu=65536",
                    "tap=a,mtu=0",
                    "tap=a,mtu=1k",
                    "tap=a,queues=0",
                    "tap=a,queues=16",
                    "tap=a,queues=x",
                    "user,queues=2",
                    "tap=a,rate=",
                    "tap=a,rate=0",
                    "tap=a,rate=5iops",
                    "tap=a,rate=1M+1M",
                    "tap=a,rate-in=x",
                    "tap=a,nospoof=1",
                    "tap=a,",
                    "tap=a,pcap=",
                    "nonsense"}) {
    EXPECT_EQ(codeOf(text), "TRP-net-001") << text;
  }
}

TEST(NetOption, PortsAreForwardedWithUserAlone) {
  auto nets = planned({"user,hostfwd=tcp:8080:80,hostfwd=udp:127.0.0.1:5353:53"});
  auto& forwards = nets[0].forwards;
  ASSERT_EQ(forwards.size(), 2u);
  EXPECT_FALSE(forwards[0].udp);
  EXPECT_EQ(forwards[0].hostPort, 8080);
  EXPECT_EQ(forwards[0].guestPort, 80);
  EXPECT_TRUE(forwards[1].udp);
  EXPECT_STREQ(forwards[1].address.cStr(), "127.0.0.1");
  EXPECT_EQ(codeOf("tap=a,hostfwd=tcp:8080:80"), "TRP-net-001");
  for (auto forward : {"tcp", "tcp:80", "tcp:80:", "tcp:0:80", "tcp:80:65536", "sctp:80:80",
                       "tcp:1.2.3:80:80", "tcp:host:80:80", "tcp:1.2.3.4:80:80:80", "80:80"}) {
    EXPECT_EQ(codeOf(kj::str("user,hostfwd=", forward)), "TRP-net-001") << forward;
  }
  EXPECT_EQ(codeOf("user,hostfwd=tcp:8080:80,hostfwd=tcp:8080:81"), "TRP-net-001");
  EXPECT_EQ(codeOf("user,hostfwd=tcp:8080:80,hostfwd=tcp:127.0.0.1:8080:81"), "TRP-net-001");
  EXPECT_EQ(codeOf("user,hostfwd=tcp:8080:80,hostfwd=udp:8080:80"), "");
  EXPECT_EQ(errorOf({"user,hostfwd=tcp:1:1", "user,hostfwd=tcp:1:2"}),
            "TRP-net-001: --net user: port 1 of the host is forwarded twice");
}

TEST(NetOption, ATapIsOneDevices) {
  EXPECT_EQ(errorOf({"tap=a", "tap=a"}).substr(0, 11), "TRP-net-001");
  EXPECT_EQ(errorOf({"fd=5", "fd=6:5"}).substr(0, 11), "TRP-net-001");
  std::string error =
      errorOf({"tap=a", "tap=b", "tap=c", "tap=d", "tap=e", "tap=f", "tap=g", "tap=h", "tap=i"});
  EXPECT_EQ(error.substr(0, 11), "TRP-net-003");
}

}  // namespace
}  // namespace troupe
