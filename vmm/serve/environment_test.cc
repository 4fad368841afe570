// Realms and their guests, before any of these has begun.
#include "vmm/serve/environment.h"

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <string>

namespace troupe::realm {
namespace {

template <typename Action>
std::string refusalOf(Action&& action) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions(action)) {
    return exception->getDescription().cStr();
  }
  return "";
}

bool begins(const std::string& text, const char* with) {
  return text.rfind(with, 0) == 0;
}

// No guest of these tests begins.
LaunchOrder nothing() {
  LaunchOrder order;
  order.info = kj::heap<capnp::MallocMessageBuilder>();
  return order;
}

struct Bench {
  Environment& create(kj::StringPtr label = "") {
    return realms->create(label, Environment::Kept::NO, {});
  }
  void end() { realms->end("the test is over").wait(io.waitScope); }

  static Stage::Choices choices() {
    Stage::Choices choices;
    choices.jail = sandbox::Jail::OFF;
    choices.programs = "bin"_kj;
    return choices;
  }

  kj::AsyncIoContext io = kj::setupAsyncIo();
  Stage stage{io, choices()};
  kj::Own<Environments> realms = kj::heap<Environments>(io, stage);
};

TEST(Environment, ThatHasEndedLaunchesNoMore) {
  Bench bench;
  auto& realm = bench.create();
  Environment::Hold hold(realm);
  auto guest = realm.launch("one", nothing());
  EXPECT_EQ(guest->cid(), 3u);
  bench.end();
  auto refusal = refusalOf([&] { realm.launch("another", nothing()); });
  EXPECT_TRUE(begins(refusal, "TRP-rlm-030: ")) << refusal;
  EXPECT_EQ(KJ_ASSERT_NONNULL(guest->outcome()).exit, ExitCode::STOPPED);
}

// Who goes on to launch while the daemon ends does not keep it.
TEST(Environments, ThatHaveEndedAreNoMore) {
  Bench bench;
  bench.end();
  auto refusal = refusalOf([&] { bench.create(); });
  EXPECT_TRUE(begins(refusal, "TRP-rlm-030: ")) << refusal;
}

TEST(Environment, WhoseLastHolderLeavesIsGoneWithItsGuests) {
  Bench bench;
  auto& realm = bench.create();
  uint32_t id = realm.id();
  kj::Own<Instance> guest;
  {
    Environment::Hold hold(realm);
    guest = realm.launch("one", nothing());
  }
  EXPECT_TRUE(bench.realms->find(id) == nullptr);
  guest->onEnd().wait(bench.io.waitScope);
  EXPECT_EQ(KJ_ASSERT_NONNULL(guest->outcome()).exit, ExitCode::STOPPED);
}

TEST(Environments, HaveSoManyGuestsAndNoMore) {
  Bench bench;
  auto& one = bench.create();
  auto& other = bench.create();
  Environment::Hold hold(one), holdOther(other);
  for (uint32_t i = 0; i < Environments::MOST_GUESTS; i++)
    (i % 2 == 0 ? one : other).launch("", nothing());
  auto refusal = refusalOf([&] { one.launch("", nothing()); });
  EXPECT_TRUE(begins(refusal, "TRP-rlm-031: ")) << refusal;
  bench.end();
  EXPECT_EQ(one.guests().size() + other.guests().size(), 0u);
}

TEST(Environments, AreSoManyAndNoMore) {
  Bench bench;
  kj::Vector<kj::Own<Environment::Hold>> holds;
  for (uint32_t i = 0; i < Environments::MOST_REALMS; i++)
    holds.add(kj::heap<Environment::Hold>(bench.create()));
  auto refusal = refusalOf([&] { bench.create(); });
  EXPECT_TRUE(begins(refusal, "TRP-rlm-032: ")) << refusal;
  holds.removeLast();
  EXPECT_EQ(bench.create().id(), Environments::MOST_REALMS);  // no number is given twice
}

// As the call of a client does that has files still to come when the daemon ends.
TEST(Environments, AreOutlivedByWhoHoldsOne) {
  Bench bench;
  auto hold = kj::heap<Environment::Hold>(bench.create());
  bench.realms = nullptr;
  hold = nullptr;
}

}  // namespace
}  // namespace troupe::realm
