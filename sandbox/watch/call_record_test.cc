#include "sandbox/watch/call_record.h"

#include <gtest/gtest.h>

namespace troupe::sandbox {
namespace {

CallRecord sample() {
  CallRecord record;
  record.actor = "blk";
  record.program = "/opt/a b%/troupe-devices";
  record.stage = "thread:queue";
  record.syscall = 16;
  record.arguments[0] = 17;
  record.arguments[5] = ~uint64_t{0};
  record.count = 300;
  record.stack = {0xf9d00, 0x1234};
  return record;
}

TEST(CallRecord, IsReadAsItWasWritten) {
  std::vector<CallRecord> records;
  ASSERT_TRUE(readRecords(recordHeader() + recordLine(sample()), records));
  ASSERT_EQ(1u, records.size());
  const CallRecord& record = records[0];
  EXPECT_EQ("blk", record.actor);
  EXPECT_EQ("/opt/a b%/troupe-devices", record.program);
  EXPECT_EQ("thread:queue", record.stage);
  EXPECT_FALSE(record.mainThread);
  EXPECT_EQ(16, record.syscall);
  EXPECT_EQ(17u, record.arguments[0]);
  EXPECT_EQ(~uint64_t{0}, record.arguments[5]);
  EXPECT_EQ(300u, record.count);
  EXPECT_EQ((std::vector<uint64_t>{0xf9d00, 0x1234}), record.stack);
}

TEST(CallRecord, LineThatWasCutOffIsLeftOut) {
  std::string line = recordLine(sample());
  std::vector<CallRecord> records;
  ASSERT_TRUE(readRecords(recordHeader() + line + line.substr(0, line.size() / 3), records));
  EXPECT_EQ(1u, records.size());
}

TEST(CallRecord, OtherTextIsNoneOfIt) {
  std::vector<CallRecord> records;
  EXPECT_FALSE(readRecords("root:x:0:0\n" + recordLine(sample()), records));
  EXPECT_FALSE(readRecords("", records));
  EXPECT_TRUE(readRecords(recordHeader() + "blk / start main x\n\n \n%% %1 %g0\n", records));
  EXPECT_TRUE(records.empty());
}

}  // namespace
}  // namespace troupe::sandbox
