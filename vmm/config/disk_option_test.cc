#include "vmm/config/disk_option.h"

#include <capnp/message.h>
#include <gtest/gtest.h>

#include <string>

#include "vmm/config/disk_plan.h"

namespace troupe {
namespace {

DiskPlan planned(kj::StringPtr text) {
  capnp::MallocMessageBuilder message;
  auto disks = message.initRoot<VmConfig>().initDisks(1);
  parseDisk(text, disks[0]);
  return kj::mv(planDisks(disks.asReader())[0]);
}

// The first line of the error; "" when there is none.
std::string errorOf(kj::StringPtr text) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { planned(text); })) {
    std::string description = exception->getDescription().cStr();
    return description.substr(0, description.find('\n'));
  }
  return "";
}

std::string codeOf(kj::StringPtr text) {
  return errorOf(text).substr(0, 11);
}

TEST(DiskOption, EveryPartReachesThePlan) {
  auto plan =
      planned("a.img,ro,format=raw,id=data,serial=WD-1,direct,queues=4,rate=1M/8M+500iops/1000");
  EXPECT_STREQ(plan.path.cStr(), "a.img");
  EXPECT_STREQ(plan.id.cStr(), "data");
  EXPECT_STREQ(plan.serial.cStr(), "WD-1");
  EXPECT_TRUE(plan.readOnly);
  EXPECT_TRUE(plan.direct);
  EXPECT_EQ(plan.queues, 4);
  EXPECT_EQ(plan.rate.bytesPerSecond, 1 << 20);
  EXPECT_EQ(plan.rate.burstBytes, 8 << 20);
  EXPECT_EQ(plan.rate.itemsPerSecond, 500);
  EXPECT_EQ(plan.rate.burstItems, 1000);
}

TEST(DiskOption, AVolatileDiskIsOnlyRead) {
  auto plan = planned("a.img,volatile");
  EXPECT_TRUE(plan.isVolatile);
  EXPECT_TRUE(plan.readOnly);
  EXPECT_FALSE(planned("a.img,ro").isVolatile);
  EXPECT_EQ(codeOf("a.img,volatile,rw"), "TRP-cfg-005");
  EXPECT_EQ(codeOf("a.img,ro,volatile"), "TRP-cfg-005");
  EXPECT_EQ(codeOf("a.img,volatile=1"), "TRP-cfg-014");
}

TEST(DiskOption, BackingFilesComeFromTopToBottom) {
  auto plan = planned("a.qcow2,format=qcow2,backing=/i/b,,c.qcow2:qcow2,backing=d:e.img:raw");
  EXPECT_EQ(plan.format, DiskFormat::QCOW2);
  ASSERT_EQ(plan.backing.size(), 2u);
  EXPECT_STREQ(plan.backing[0].path.cStr(), "/i/b,c.qcow2");
  EXPECT_EQ(plan.backing[0].format, DiskFormat::QCOW2);
  EXPECT_STREQ(plan.backing[1].path.cStr(), "d:e.img");
  EXPECT_EQ(plan.backing[1].format, DiskFormat::RAW);
}

TEST(DiskOption, FormatsAreSaidAndChainsMakeSense) {
  EXPECT_EQ(codeOf("a,format=qcow"), "TRP-cfg-006");
  EXPECT_EQ(codeOf("a,format=vmdk"), "TRP-cfg-006");
  EXPECT_EQ(codeOf("a,backing=b:raw"), "TRP-cfg-014");
  EXPECT_EQ(codeOf("a,format=qcow2,backing=b"), "TRP-cfg-014");
  EXPECT_EQ(codeOf("a,format=qcow2,backing=b:"), "TRP-cfg-006");
  EXPECT_EQ(codeOf("a,format=qcow2,backing=:raw"), "TRP-cfg-014");
  EXPECT_EQ(codeOf("a,format=qcow2,backing=b:vmdk"), "TRP-cfg-006");
  EXPECT_EQ(codeOf("a,format=qcow2,backing=b:raw,backing=c:raw"), "TRP-cfg-014");
  std::string many = "a,format=qcow2";
  for (int i = 0; i < 9; i++)
    many += ",backing=b:qcow2";
  EXPECT_EQ(codeOf(many.c_str()), "TRP-cfg-014");
}

TEST(DiskOption, WhatIsNotSaidHasItsDefault) {
  auto plan = planned("a.img");
  EXPECT_STREQ(plan.id.cStr(), "disk0");
  EXPECT_STREQ(plan.serial.cStr(), "disk0");
  EXPECT_FALSE(plan.readOnly);
  EXPECT_FALSE(plan.direct);
  EXPECT_EQ(plan.queues, 1);
  EXPECT_EQ(plan.rate.bytesPerSecond, 0);
  EXPECT_EQ(plan.rate.itemsPerSecond, 0);
}

TEST(DiskOption, TheSerialIsTheIdUnlessSaid) {
  EXPECT_STREQ(planned("a,id=x").serial.cStr(), "x");
  EXPECT_FALSE(planned("a,rw").readOnly);
}

TEST(DiskOption, ABurstIsOneSecondsWorthUnlessSaid) {
  EXPECT_EQ(planned("a,rate=64K").rate.burstBytes, 64 << 10);
  EXPECT_EQ(planned("a,rate=7iops").rate.burstItems, 7);
  EXPECT_EQ(planned("a,rate=7iops+64K").rate.burstBytes, 64 << 10);
}

TEST(DiskOption, RatesThatCannotBeAreRefused) {
  for (kj::StringPtr rate : {"0"_kj,
                             "x"_kj,
                             "1Q"_kj,
                             "-1"_kj,
                             "0iops"_kj,
                             "iops"_kj,
                             "1Miops"_kj,
                             "1M/"_kj,
                             "/1M"_kj,
                             "1M/0"_kj,
                             "1M+"_kj,
                             "+1M"_kj,
                             "1M+2M"_kj,
                             "1iops+2iops"_kj,
                             "2T"_kj,
                             "1M/1T"_kj,
                             "1/3601"_kj,
                             "1M/1M/1M"_kj,
                             "99999999999999999999"_kj,
                             "1iops/99999999999999999999"_kj}) {
    EXPECT_EQ(codeOf(kj::str("a,rate=", rate)), "TRP-cfg-014") << rate.cStr();
  }
  EXPECT_EQ(errorOf("a,rate=1M/0"),
            "TRP-cfg-014: --disk \"a\": rate=1M/0 is not possible: \"0\" is not a size; a rate is "
            "100M, 500iops or 100M+500iops, at most 1T a second, each with a burst if wanted: "
            "100M/1G");
}

TEST(DiskOption, MistakesNameWhatIsPossible) {
  EXPECT_EQ(codeOf("a,rate"), "TRP-cfg-014");
  EXPECT_EQ(codeOf("a,serial="), "TRP-cfg-014");
  EXPECT_EQ(codeOf("a,serial=123456789012345678901"), "TRP-cfg-015");
  EXPECT_EQ(errorOf("a,ro,rw"),
            "TRP-cfg-005: --disk \"a,ro,rw\": \"ro\" and \"rw\" exclude each other");
  EXPECT_EQ(
      errorOf("a,queue=2"),
      "TRP-cfg-014: --disk \"a,queue=2\": unknown part \"queue=2\"; did you mean "
      "queues?; after the path come ro, rw or volatile, format=raw or qcow2, backing=PATH:FORMAT, "
      "id=ID, serial=TEXT, direct, "
      "queues=N or rate=RATE, and a comma in the path is written twice");
}

}  // namespace
}  // namespace troupe
