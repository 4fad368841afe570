// Which links the guests of a realm get, and which address on them.
#include "vmm/realm/realm_net.h"

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <unistd.h>

#include "vmm/net/mac_lease.h"
#include "vmm/realm/testing/launch_bench.h"

namespace troupe::realm {
namespace {

using testing::Bench;
using testing::has;

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
  EXPECT_STREQ(troupe::macText(start.plan.nets[0].mac).cStr(), "02:00:00:00:00:01");
  EXPECT_STREQ(troupe::macText(start.plan.nets[1].mac).cStr(), "02:1a:11:00:01:00");
}

// A link that cannot be opened would be complained of with another code.
TEST(RealmNet, WhatCannotBeIsRefusedBeforeALinkIsOpened) {
  struct {
    const char* nets;
    const char* code;
  } cases[] = {
      {R"({"net": [{}, {}, {}, {}, {}, {}, {}, {}]})", "TRP-net-003"},
      {R"({"net": [{"mac": "../x"}]})", "TRP-net-002"},
      {R"({"net": [{"mac": "02:00:00:00:00:0A"}, {"mac": "02:00:00:00:00:0a"}]})", "TRP-net-002"},
  };
  for (auto& one : cases) {
    Bench bench;
    bench.cfg(R"({"linux": "/k"})");
    bench.typed(one.nets);
    bench.terms.net = parseNetChoice("bridge=no-such-br");
    EXPECT_TRUE(has(bench.refusal(), one.code)) << one.nets;
  }
}

// So a lease of the one is a lease of the other.
TEST(RealmNet, AnAddressIsWrittenInOneWay) {
  capnp::MallocMessageBuilder nobody, message;
  GuestDraft draft(nobody.initRoot<GuestConfig>().asReader());
  draft.merge(R"({"linux": "/k"})"_kj, "b/guest.cfg");
  draft.mergeTyped(R"({"net": [{"mac": "02:1A:11:00:01:0F"}, {}]})"_kj, "b/troupe.json");
  auto plan = draft.finish({4, false, false});
  auto config = message.initRoot<VmConfig>();
  RealmNets(plan, parseNetChoice("user")).describe(config);
  auto nets = config.getNets();
  ASSERT_EQ(nets.size(), 3u);
  EXPECT_STREQ(nets[0].getMac().cStr(), "02:1a:11:00:01:0f");
  EXPECT_STREQ(nets[1].getMac().cStr(), "");  // made of the name
  EXPECT_STREQ(nets[2].getMac().cStr(), "02:1a:11:00:01:00");
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
