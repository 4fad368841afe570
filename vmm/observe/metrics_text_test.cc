#include "vmm/observe/metrics_text.h"

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <string.h>

#include "devices/virtio/queue_counters.h"

namespace troupe {
namespace {

struct Sample {
  Sample() {
    load.setName("web");
    load.setState("paused");
    auto disk = load.initProcesses(1)[0];
    disk.setName("blk0");
    disk.setKind("blk");
    disk.setCpuNs(1500000000);
    auto queue = disk.initQueues(1)[0];
    queue.setIndex(3);
    queue.setRequests(UINT64_MAX);
    queue.setWaitNs(5000);
    auto waits = queue.initWaits(virtio::CounterSlot::WAITS);
    waits.set(0, 2);
    waits.set(1, 3);
    waits.set(9, 1);
  }
  bool says(kj::StringPtr line) {
    auto text = kj::str("\n", metricsText(load));
    return strstr(text.cStr(), kj::str("\n", line, "\n").cStr()) != nullptr;
  }

  capnp::MallocMessageBuilder message;
  VmLoad::Builder load = message.initRoot<VmLoad>();
};

TEST(MetricsText, HasBaseUnitsAndALabelForEachThing) {
  Sample sample;
  EXPECT_TRUE(sample.says(
      R"(troupe_process_cpu_seconds_total{vm="web",process="blk0",kind="blk"} 1.500000000)"));
  EXPECT_TRUE(sample.says(
      R"(troupe_queue_requests_total{vm="web",device="blk0",queue="3"} 18446744073709551615)"));
  EXPECT_TRUE(sample.says(R"(troupe_state{vm="web",state="paused"} 1)"));
  EXPECT_TRUE(sample.says(R"(troupe_state{vm="web",state="running"} 0)"));
}

TEST(MetricsText, SayWhichDeviceIsDown) {
  constexpr auto LINE = R"(troupe_process_down{vm="web",process="blk0",kind="blk"} )"_kj;
  Sample sample;
  EXPECT_TRUE(sample.says(kj::str(LINE, 0)));
  sample.load.getProcesses()[0].setIsDown(true);
  EXPECT_TRUE(sample.says(kj::str(LINE, 1)));
}

TEST(MetricsText, AHistogramsBucketsAddUp) {
  Sample sample;
  auto bucket = [&](kj::StringPtr bound, int count) {
    return sample.says(
        kj::str(R"(troupe_queue_wait_seconds_bucket{vm="web",device="blk0",queue="3",le=")", bound,
                R"("} )", count));
  };
  EXPECT_TRUE(bucket("0.000004096", 2));
  EXPECT_TRUE(bucket("0.000016384", 5));
  EXPECT_TRUE(bucket("0.268435456", 5));
  EXPECT_TRUE(bucket("+Inf", 6));
  EXPECT_TRUE(
      sample.says(R"(troupe_queue_wait_seconds_count{vm="web",device="blk0",queue="3"} 6)"));
  EXPECT_TRUE(sample.says(
      R"(troupe_queue_wait_seconds_sum{vm="web",device="blk0",queue="3"} 0.000005000)"));
}

TEST(MetricsText, ANameCannotLeaveItsLabel) {
  Sample sample;
  sample.load.setName("a\"} 1\nb\\");
  EXPECT_TRUE(sample.says(R"(troupe_vcpus{vm="a\"} 1\nb\\"} 0)"));
}

// What the format asks for (version 0.0.4): TYPE once for each metric and before its samples, all
// of one metric side by side, no line without its newline.
TEST(MetricsText, EachMetricIsDeclaredOnceAndStandsTogether) {
  Sample sample;
  auto text = metricsText(sample.load);
  ASSERT_TRUE(text.endsWith("\n"));
  kj::Vector<kj::String> declared;
  kj::String current;
  for (const char* line = text.cStr(); *line != 0;) {
    const char* end = strchr(line, '\n');
    auto words = kj::heapString(line, end - line);
    line = end + 1;
    if (words.startsWith("# HELP ")) continue;
    if (words.startsWith("# TYPE ")) {
      auto rest = words.slice(strlen("# TYPE "));
      current = kj::heapString(rest.slice(0, KJ_ASSERT_NONNULL(rest.findFirst(' '))));
      for (auto& earlier : declared)
        EXPECT_STRNE(earlier.cStr(), current.cStr());
      declared.add(kj::heapString(current));
      continue;
    }
    EXPECT_TRUE(words.startsWith(current)) << words.cStr();
  }
  EXPECT_GT(declared.size(), 15u);
}

}  // namespace
}  // namespace troupe
