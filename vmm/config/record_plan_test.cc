#include "vmm/config/record_plan.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include <string>

namespace troupe {
namespace {

struct Plan {
  explicit Plan(std::initializer_list<kj::StringPtr> records, kj::StringPtr limit = "256M") {
    auto config = message.initRoot<VmConfig>();
    auto list = config.initRecords(records.size());
    kj::uint next = 0;
    for (auto text : records)
      list.set(next++, text);
    config.setRecordLimit(limit);
    auto names = kj::arr(kj::str("blk0"), kj::str("rng0"));
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions(
                                [&]() { plans = planRecords(config.asReader(), names); })) {
      error = exception->getDescription().cStr();
    }
  }

  capnp::MallocMessageBuilder message;
  RecordPlans plans;
  std::string error;
};

TEST(RecordPlan, TakesADeviceAndAFile) {
  Plan plan({"blk0=a=b.rec", "rng0=x"}, "2M");
  ASSERT_EQ(plan.error, "");
  ASSERT_EQ(plan.plans.devices.size(), 2);
  EXPECT_STREQ(plan.plans.devices[0].device.cStr(), "blk0");
  EXPECT_STREQ(plan.plans.devices[0].path.cStr(), "a=b.rec");
  EXPECT_EQ(plan.plans.limitBytes, 2 << 20);
}

TEST(RecordPlan, NamesTheDevicesThatCanBeRecorded) {
  EXPECT_NE(Plan({"net0=x"}).error.find("TRP-rec-009"), std::string::npos);
  EXPECT_NE(Plan({"net0=x"}).error.find("it has blk0, rng0"), std::string::npos);
}

TEST(RecordPlan, RefusesWhatIsMalformed) {
  for (kj::StringPtr text : {"", "blk0", "blk0=", "=x", "="})
    EXPECT_NE(Plan({text}).error.find("TRP-rec-001"), std::string::npos) << text.cStr();
  for (kj::StringPtr limit : {"", "0", "1023K", "5G", "-1", "many"})
    EXPECT_NE(Plan({}, limit).error.find("TRP-rec-003"), std::string::npos) << limit.cStr();
}

TEST(RecordPlan, RefusesTheSameDeviceOrFileTwice) {
  EXPECT_NE(Plan({"blk0=x", "blk0=y"}).error.find("TRP-cfg-005"), std::string::npos);
  EXPECT_NE(Plan({"blk0=x", "rng0=x"}).error.find("TRP-cfg-005"), std::string::npos);
}

}  // namespace
}  // namespace troupe
