#include "guest/payload/command_line.h"

#include <gtest/gtest.h>

#include <string>

namespace payload {
namespace {

std::string complaints;

Options parse(const char* line) {
  complaints.clear();
  return parseCommandLine(line, [](const char* word, unsigned length) {
    complaints.append(word, length);
    complaints += ';';
  });
}

TEST(CommandLine, AnEmptyLineMeansTheSelfTestAndPowerOff) {
  Options options = parse("");
  EXPECT_EQ(options.end, End::POWEROFF);
  EXPECT_EQ(options.bench.kind, Bench::NONE);
  EXPECT_TRUE(options.eventIndex);
  EXPECT_TRUE(options.indirect);
  EXPECT_EQ(options.scratch, NO_DISK);
}

TEST(CommandLine, AWindowIsAHexadecimalAddressOfAPage) {
  EXPECT_EQ(parse("").window, 0u);
  EXPECT_EQ(parse("window=100000000").window, 0x100000000u);
  EXPECT_EQ(complaints, "");
  parse("window=100000001 window= window=0x1000 window=11112222333344445");
  EXPECT_EQ(complaints, "window=100000001;window=;window=0x1000;window=11112222333344445;");
}

TEST(CommandLine, EveryWordOfABenchmarkCounts) {
  BenchOptions bench =
      parse(
          "bench=blk depth=32 queues=2 count=60000 size=512 mode=irq warmup=0 rounds=7 disk=1 "
          "write=1")
          .bench;
  EXPECT_EQ(bench.kind, Bench::BLK);
  EXPECT_EQ(bench.depth, 32u);
  EXPECT_EQ(bench.queues, 2u);
  EXPECT_EQ(bench.count, 60000u);
  EXPECT_EQ(bench.size, 512u);
  EXPECT_TRUE(bench.interrupts);
  EXPECT_EQ(bench.warmup, 0u);
  EXPECT_EQ(bench.rounds, 7u);
  EXPECT_EQ(bench.disk, 1u);
  EXPECT_TRUE(bench.write);
  EXPECT_EQ(complaints, "");
}

TEST(CommandLine, ANetworkBenchmarkHasAnOperationAndAFrame) {
  BenchOptions bench = parse("bench=net op=trip net=1 frame=1514 depth=64").bench;
  EXPECT_EQ(bench.kind, Bench::NET);
  EXPECT_EQ(bench.op, NetOp::TRIP);
  EXPECT_EQ(bench.net, 1u);
  EXPECT_EQ(bench.frame, 1514u);
  EXPECT_EQ(complaints, "");
  parse("op=jump frame=59 frame=1515");
  EXPECT_EQ(complaints, "op=jump;frame=59;frame=1515;");
}

TEST(CommandLine, DurabilityHasASeed) {
  BenchOptions bench = parse("bench=durability seed=12 depth=8").bench;
  EXPECT_EQ(bench.kind, Bench::DURABILITY);
  EXPECT_EQ(bench.seed, 12u);
  EXPECT_EQ(complaints, "");
}

TEST(CommandLine, WordsOfOthersAreLeftAlone) {
  Options options = parse("  console=ttyS0 endless=reset end=halt\tkeys=console scratch=3 quiet\n");
  EXPECT_EQ(options.end, End::HALT);
  EXPECT_EQ(options.keys, Keys::CONSOLE);
  EXPECT_EQ(options.scratch, 3u);
  EXPECT_EQ(complaints, "");
}

TEST(CommandLine, AValueItDoesNotUnderstandIsNamed) {
  parse("end=never depth=0 queues=0 size=1000 count=99999999999 mode= eventidx=2 rounds=7x");
  EXPECT_EQ(complaints,
            "end=never;depth=0;queues=0;size=1000;count=99999999999;mode=;eventidx=2;rounds=7x;");
}

TEST(CommandLine, FlagsStandAlone) {
  Options options = parse("hello idle intx scratch eventidx=0 indirect=0");
  EXPECT_TRUE(options.hello);
  EXPECT_TRUE(options.idle);
  EXPECT_TRUE(options.intx);
  EXPECT_EQ(options.scratch, EVERY_DISK);
  EXPECT_FALSE(options.eventIndex);
  EXPECT_FALSE(options.indirect);
}

}  // namespace
}  // namespace payload
