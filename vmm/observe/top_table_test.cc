#include "vmm/observe/top_table.h"

#include <capnp/message.h>
#include <gtest/gtest.h>
#include <string.h>

#include <initializer_list>

#include "devices/virtio/queue_counters.h"
#include "vmm/observe/load_copy.h"

namespace troupe {
namespace {

constexpr uint64_t SECOND = 1000000000;

// A VM with a troupe and a disk of one queue.
struct Look {
  explicit Look(uint64_t ns) {
    load.setName("web");
    load.setState("running");
    load.setMonotonicNs(ns);
    auto processes = load.initProcesses(2);
    processes[0].setName("troupe");
    processes[1].setName("blk0");
    processes[1].setPid(42);
    queue().setIndex(1);
  }
  ProcessLoad::Builder blk() { return load.getProcesses()[1]; }
  QueueLoad::Builder queue() {
    if (!blk().hasQueues()) blk().initQueues(1)[0].initWaits(virtio::CounterSlot::WAITS);
    return blk().getQueues()[0];
  }
  VmLoad::Reader reader() { return load.asReader(); }

  capnp::MallocMessageBuilder message;
  VmLoad::Builder load = message.initRoot<VmLoad>();
};

ProcessRates blkRates(Look& now, Look& earlier, uint64_t elapsed) {
  return ratesOf(now.blk().asReader(), find(earlier.reader(), now.blk().asReader()), elapsed);
}

bool has(kj::StringPtr text, kj::StringPtr part) {
  return strstr(text.cStr(), part.cStr()) != nullptr;
}

TEST(TopTable, RatesAreWhatHappenedBetweenTwoLooks) {
  Look earlier(SECOND), now(3 * SECOND);
  earlier.blk().setCpuNs(SECOND);
  now.blk().setCpuNs(2 * SECOND);
  earlier.queue().setRequests(1000);
  now.queue().setRequests(5000);
  now.queue().setToGuestBytes(8192);
  now.queue().setFromGuestBytes(2048);
  now.queue().setInFlight(7);
  auto rates = blkRates(now, earlier, 2 * SECOND);
  EXPECT_DOUBLE_EQ(rates.cpuPercent, 50);
  EXPECT_DOUBLE_EQ(rates.requestsPerSecond, 2000);
  EXPECT_DOUBLE_EQ(rates.bytesPerSecond, 5120);
  EXPECT_EQ(rates.inFlight, 7u);
  EXPECT_TRUE(rates.meanWaitUs == nullptr) << "none was timed";
}

TEST(TopTable, WaitsAreOfTheRequestsThatWereTimedMeanwhile) {
  Look earlier(SECOND), now(2 * SECOND);
  earlier.queue().getWaits().set(9, 1000);
  now.queue().getWaits().set(9, 1000);
  now.queue().getWaits().set(0, 98);
  now.queue().getWaits().set(3, 2);
  now.queue().setWaitNs(200000);
  auto rates = blkRates(now, earlier, SECOND);
  EXPECT_DOUBLE_EQ(KJ_ASSERT_NONNULL(rates.meanWaitUs), 2);
  EXPECT_DOUBLE_EQ(KJ_ASSERT_NONNULL(rates.p99WaitUs), double(virtio::waitBound(3)) / 1000);
}

TEST(TopTable, ASuccessorsCpuTimeBeginsAnewAndItsCountersGoOn) {
  Look earlier(SECOND), now(2 * SECOND);
  earlier.blk().setCpuNs(100 * SECOND);
  earlier.queue().setRequests(1000);
  now.blk().setPid(43);
  now.blk().setCpuNs(SECOND / 10);
  now.queue().setRequests(1010);
  auto rates = blkRates(now, earlier, SECOND);
  EXPECT_DOUBLE_EQ(rates.cpuPercent, 10);
  EXPECT_DOUBLE_EQ(rates.requestsPerSecond, 10);
}

TEST(TopTable, NumbersThatRunBackwardsMakeNoRates) {
  Look earlier(SECOND), now(2 * SECOND);
  earlier.queue().setRequests(UINT64_MAX);
  earlier.queue().setWaitNs(UINT64_MAX);
  for (uint32_t i = 0; i < virtio::CounterSlot::WAITS; i++)
    earlier.queue().getWaits().set(i, UINT64_MAX);
  auto rates = blkRates(now, earlier, SECOND);
  EXPECT_EQ(rates.requestsPerSecond, 0);
  EXPECT_TRUE(rates.meanWaitUs == nullptr);
  EXPECT_EQ(blkRates(now, earlier, 0).requestsPerSecond, 0);
}

TEST(TopTable, ShowsLimitsInForceAsUsedOfAllowed) {
  Look earlier(SECOND), now(2 * SECOND);
  now.blk().setCpuNs(SECOND / 4);
  auto limits = now.blk().initLimits(3);
  limits[0].setName("memory_max");
  limits[0].setUsed(3 << 20);
  limits[0].setAllowed(1024ull << 20);
  limits[1].setName("pids_max");
  limits[1].setUsed(2);
  limits[1].setAllowed(160);
  limits[2].setName("cpu_max");
  limits[2].setAllowed(SECOND / 2);
  auto table = topTable(now.reader(), earlier.reader());
  EXPECT_TRUE(has(table, "memory 3.0M/1.0G, tasks 2/160, cpu 25/50%")) << table.cStr();
}

TEST(TopTable, SaysWhoStaysDown) {
  Look earlier(SECOND), now(2 * SECOND);
  now.blk().setRestarts(3);
  now.blk().setIsDown(true);
  capnp::MallocMessageBuilder copies;
  auto copy = copies.initRoot<VmLoad>();
  copyLoad(now.reader(), copy);
  EXPECT_TRUE(has(topTable(copy, earlier.reader()), " 3, down "));
  EXPECT_TRUE(has(topLine(copy, earlier.reader()), "\"isDown\":true"));
}

TEST(TopTable, HasARowForEachProcessAndEachVcpu) {
  Look earlier(SECOND), now(2 * SECOND);
  auto threads = now.blk().initThreads(1);
  threads[0].setName("vp-0");
  auto table = topTable(now.reader(), earlier.reader());
  EXPECT_TRUE(has(table, "\ntroupe ")) << table.cStr();
  EXPECT_TRUE(has(table, "\nblk0 "));
  EXPECT_TRUE(has(table, "\n  vp-0 "));
}

TEST(TopTable, IsOneLineOfJsonForEachSample) {
  Look earlier(SECOND), now(2 * SECOND);
  auto line = topLine(now.reader(), earlier.reader());
  EXPECT_TRUE(line.findFirst('\n') == nullptr);
  EXPECT_TRUE(has(line, "\"intervalNs\":1000000000"));
  EXPECT_TRUE(has(line, "\"meanWaitUs\":null"));
}

TEST(TopTable, ACopyIsBoundedAndSafeToShow) {
  capnp::MallocMessageBuilder message, copies;
  auto load = message.initRoot<VmLoad>();
  load.setName("\x1b[2J");
  auto processes = load.initProcesses(1000);
  processes[0].setName(kj::str(kj::repeat('x', 100000)));
  processes[0].initQueues(1000)[0].initWaits(1000);
  processes[0].initThreads(1000);
  processes[0].initLimits(1000);
  auto copy = copies.initRoot<VmLoad>();
  copyLoad(load, copy);
  EXPECT_STREQ(copy.getName().cStr(), "\\x1b[2J");
  EXPECT_LE(copy.getProcesses().size(), 64u);
  EXPECT_LE(copy.getProcesses()[0].getName().size(), 50u);
  EXPECT_LE(copy.getProcesses()[0].getQueues().size(), 31u);
  EXPECT_LE(copy.getProcesses()[0].getQueues()[0].getWaits().size(), 10u);
  EXPECT_LE(copies.sizeInWords(), 64u << 10);
}

}  // namespace
}  // namespace troupe
