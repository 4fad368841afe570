// What a balloon, honest or not, can have done in guest RAM by the broker.
#include "broker/ram_deputy.h"

#include <capnp/message.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <functional>
#include <string>
#include <vector>

#include "broker/memory_map.h"
#include "broker/remote_device_bench.h"
#include "sandbox/shared_memory.h"

namespace troupe::broker {
namespace {

constexpr uint64_t PAGE = 4096;
constexpr uint64_t RAM_BYTES = 256 * MIB;
constexpr uint64_t RING = 0x10000;  // the used ring of queue 0, of 8 entries

struct Range {
  uint64_t address;
  uint64_t size;
};

struct Bench {
  explicit Bench(RamDeputy::Right right = RamDeputy::Right::GIVE_BACK_TOO) : deputy(ram, right) {
    activate({{0, 8, 0, 0, RING}});
  }
  void activate(std::vector<QueueSettings> queues) {
    deputy.activate(++activation, kj::arrayPtr(queues.data(), queues.size()));
  }
  struct Element {
    uint16_t head;
    uint32_t written;
  };
  uint64_t give(const std::vector<Range>& ranges, const std::vector<Element>& chains = {},
                uint16_t queue = 0) {
    capnp::MallocMessageBuilder message;
    auto params = message.initRoot<DeviceHost::ReturnChainsParams>();
    auto list = params.initChains(chains.size());
    for (size_t i = 0; i < chains.size(); i++) {
      list[i].setHead(chains[i].head);
      list[i].setWritten(chains[i].written);
    }
    auto giveBack = params.initGiveBack(ranges.size());
    for (size_t i = 0; i < ranges.size(); i++) {
      giveBack[i].setGuestAddress(ranges[i].address);
      giveBack[i].setSize(ranges[i].size);
    }
    return deputy.returnChains(queue, params.asReader().getChains(),
                               params.asReader().getGiveBack());
  }
  std::string refusal(const std::vector<Range>& ranges, const std::vector<Element>& chains = {},
                      uint16_t queue = 0) {
    return failureOf([&] { give(ranges, chains, queue); });
  }
  kj::byte* at(uint64_t address) { return KJ_ASSERT_NONNULL(ram.slice(address, PAGE)).begin(); }
  uint16_t usedIndex() { return *reinterpret_cast<uint16_t*>(at(RING) + 2); }
  uint32_t word(uint64_t address) {
    return *reinterpret_cast<uint32_t*>(at(RING) + address - RING);
  }
  uint64_t blocks() {
    struct stat info;
    KJ_SYSCALL(fstat(file.writable, &info));
    return info.st_blocks * 512;
  }
  void touch(uint64_t address, uint64_t size) {
    for (uint64_t i = 0; i < size; i += PAGE)
      *at(address + i) = 0x5a;
  }

  sandbox::SharedMemory file = sandbox::makeSharedMemory("ram", RAM_BYTES);
  GuestRam ram{RAM_BYTES, file.writable};
  RamDeputy deputy;
  uint64_t activation = 0;
};

TEST(RamDeputy, PagesGivenBackTakeNoMemoryAndReadAsZeroes) {
  Bench bench;
  bench.touch(MIB, 8 * MIB);
  uint64_t before = bench.blocks();
  EXPECT_EQ(bench.give({{MIB, 2 * MIB}, {4 * MIB, MIB}}), 3 * MIB);
  EXPECT_EQ(before - bench.blocks(), 3 * MIB);
  EXPECT_EQ(*bench.at(MIB), 0);
  EXPECT_EQ(*bench.at(3 * MIB), 0x5a);
  EXPECT_EQ(*bench.at(4 * MIB), 0);
}

TEST(RamDeputy, ChainsAreReturnedInOrderAndTheIndexWithThem) {
  Bench bench;
  bench.give({}, {{3, 0}, {1, 77}});
  EXPECT_EQ(bench.usedIndex(), 2);
  EXPECT_EQ(bench.word(RING + 4), 3u);
  EXPECT_EQ(bench.word(RING + 12), 1u);
  EXPECT_EQ(bench.word(RING + 16), 77u);
  for (int i = 0; i < 4; i++)
    bench.give({}, {{5, 0}, {6, 0}});
  EXPECT_EQ(bench.usedIndex(), 10);
  EXPECT_EQ(bench.word(RING + 4), 5u);  // the ninth, where the first was
}

TEST(RamDeputy, ARingBeginsAnewWithEachDriver) {
  Bench bench;
  bench.give({}, {{3, 0}});
  bench.deputy.deactivate();
  EXPECT_NE(bench.refusal({}, {{3, 0}}).find("not active"), std::string::npos);
  bench.activate({{0, 8, 0, 0, RING + 0x1000}});
  bench.give({}, {{4, 0}});
  EXPECT_EQ(bench.word(RING + 0x1004), 4u);
  EXPECT_EQ(bench.usedIndex(), 1);
}

TEST(RamDeputy, WhoTakesTheDevicesPlaceGoesOnWhereTheRingHasGotTo) {
  Bench bench;
  std::vector<QueueSettings> queues = {{0, 8, 0, 0, RING}};
  auto again = [&](uint64_t number) {
    bench.deputy.activate(number, kj::arrayPtr(queues.data(), queues.size()));
  };
  bench.give({}, {{3, 0}, {4, 0}});
  bench.deputy.suspend();
  EXPECT_NE(bench.refusal({}, {{5, 0}}).find("not been activated"), std::string::npos);
  EXPECT_EQ(bench.usedIndex(), 2);
  EXPECT_EQ(bench.deputy.returned(0), 2);
  EXPECT_EQ(bench.deputy.returned(1), 0);
  again(bench.activation);
  bench.give({}, {{5, 0}});
  EXPECT_EQ(bench.usedIndex(), 3);
  EXPECT_EQ(bench.word(RING + 20), 5u);
  // Another driver has set the device up while nobody played it.
  bench.deputy.suspend();
  again(bench.activation + 1);
  EXPECT_EQ(bench.deputy.returned(0), 0);
  bench.give({}, {{6, 0}});
  EXPECT_EQ(bench.usedIndex(), 1);
}

TEST(RamDeputy, RingsThatAreNotInRamAreNobodys) {
  Bench bench;
  for (uint64_t address : {RAM_BYTES - 8, RAM_BYTES, UINT64_MAX - 3, RING + 2, MMIO32_START}) {
    bench.activate({{0, 8, 0, 0, address}});
    EXPECT_NE(bench.refusal({}, {{3, 0}}).find("not active"), std::string::npos) << address;
  }
  for (uint16_t size : {0, 3, 9}) {
    bench.activate({{0, size, 0, 0, RING}});
    EXPECT_NE(bench.refusal({}, {{3, 0}}).find("not active"), std::string::npos) << size;
  }
}

TEST(RamDeputy, MoreChainsThanTheQueueHoldsAreRefused) {
  Bench bench;
  EXPECT_NE(bench.refusal({}, std::vector<Bench::Element>(9)), "");
  EXPECT_EQ(bench.usedIndex(), 0);
  EXPECT_NE(bench.refusal({}, {{0, 0}}, 1).find("not active"), std::string::npos);
  EXPECT_NE(bench.refusal({}, {{0, 0}}, 65535).find("not active"), std::string::npos);
}

// Each is refused as a whole: what stands before the wrong range stays, too.
TEST(RamDeputy, BRK07_RangesThatAreNotToBeGivenBackAreRefusedAsAWhole) {
  struct Case {
    const char* name;
    std::vector<Range> ranges;
  };
  const std::vector<Case> cases = {
      {"behind RAM", {{RAM_BYTES, PAGE}}},
      {"over its end", {{RAM_BYTES - PAGE, 2 * PAGE}}},
      {"in the hole", {{MMIO32_START, PAGE}}},
      {"a device's registers", {{LAPIC_ADDRESS, PAGE}}},
      {"above 4 GiB, where there is none", {{HIGH_RAM_START, PAGE}}},
      {"the last page", {{UINT64_MAX - PAGE + 1, PAGE}}},
      {"the last address", {{UINT64_MAX, 1}}},
      {"a length that wraps", {{2 * MIB, UINT64_MAX - PAGE + 1}}},
      {"the longest length", {{2 * MIB, UINT64_MAX}}},
      {"nothing", {{2 * MIB, 0}}},
      {"half a page", {{2 * MIB, PAGE / 2}}},
      {"between pages", {{2 * MIB + 512, PAGE}}},
      {"twice the same", {{2 * MIB, PAGE}, {2 * MIB, PAGE}}},
      {"overlapping", {{2 * MIB, 2 * PAGE}, {2 * MIB + PAGE, PAGE}}},
      {"downwards", {{3 * MIB, PAGE}, {2 * MIB, PAGE}}},
      {"too much", {{2 * MIB, 64 * MIB + PAGE}}},
      {"too much together", {{2 * MIB, 64 * MIB}, {128 * MIB, PAGE}}},
      {"too many", std::vector<Range>(2049, {2 * MIB, PAGE})},
  };
  Bench bench;
  bench.touch(MIB, 8 * MIB);
  uint64_t before = bench.blocks();
  for (const Case& item : cases) {
    std::vector<Range> ranges = item.ranges;
    if (ranges.size() < 2048) ranges.insert(ranges.begin(), {MIB, PAGE});
    EXPECT_NE(bench.refusal(ranges, {{1, 0}}), "") << item.name;
  }
  EXPECT_EQ(bench.blocks(), before);
  EXPECT_EQ(*bench.at(MIB), 0x5a);
  EXPECT_EQ(bench.usedIndex(), 0);
}

TEST(RamDeputy, AsMuchAsOneCallMayNameIsGivenBack) {
  Bench bench;
  std::vector<Range> ranges;
  for (uint64_t i = 0; i < RamDeputy::MAX_RANGES; i++)
    ranges.push_back({2 * MIB + 2 * i * PAGE, PAGE});
  EXPECT_EQ(bench.give(ranges), RamDeputy::MAX_RANGES * PAGE);
  EXPECT_EQ(bench.give({{2 * MIB, 64 * MIB}}), 64 * MIB);
}

TEST(RamDeputy, WhoMayOnlyReturnChainsGivesNothingBack) {
  Bench bench(RamDeputy::Right::RETURN_CHAINS);
  bench.touch(MIB, PAGE);
  EXPECT_NE(bench.refusal({{MIB, PAGE}}).find("may give no memory back"), std::string::npos);
  EXPECT_EQ(*bench.at(MIB), 0x5a);
  bench.give({}, {{3, 0}});
  EXPECT_EQ(bench.usedIndex(), 1);
}

// Pages that somebody holds on to: mapped elsewhere, and locked. The hole is there all the same;
// who looks finds zeroes, and whoever had the page pinned keeps a page that is nobody's any more.
TEST(RamDeputy, PagesTheKernelHoldsAreGivenBackAsAnyOther) {
  Bench bench;
  bench.touch(MIB, 4 * PAGE);
  void* view = mmap(nullptr, 4 * PAGE, PROT_READ, MAP_SHARED, bench.file.readOnly, MIB);
  ASSERT_NE(view, MAP_FAILED);
  mlock(view, 4 * PAGE);
  EXPECT_EQ(static_cast<kj::byte*>(view)[0], 0x5a);
  EXPECT_EQ(bench.give({{MIB, 4 * PAGE}}), 4 * PAGE);
  EXPECT_EQ(static_cast<kj::byte*>(view)[0], 0);
  munmap(view, 4 * PAGE);
}

// The whole way, over a real pipe: a device that was taken over.

struct HostileLink {
  HostileLink() {
    script.describe = [](DeviceInfo::Builder info) {
      info.setDeviceType(5);
      info.setQueueSizes({8, 8});
    };
    link.script = script;
    link.remote->describe().wait(link.io.waitScope);
    link.remote->attach(RamGrant{nullptr, nullptr}, link.queues, link.client, bench.deputy)
        .wait(link.io.waitScope);
  }
  std::string ask(const std::vector<Range>& ranges, uint32_t chains = 0) {
    auto request = KJ_ASSERT_NONNULL(link.device->host).returnChainsRequest();
    auto list = request.initGiveBack(ranges.size());
    for (size_t i = 0; i < ranges.size(); i++) {
      list[i].setGuestAddress(ranges[i].address);
      list[i].setSize(ranges[i].size);
    }
    request.initChains(chains);
    return failureOf([&] { request.send().ignoreResult().wait(link.io.waitScope); });
  }
  Script script;
  Bench bench;
  Link link;
};

TEST(RamDeputyOverItsPipe, BRK07_BeforeActivationAndAfterAResetNothingIsDone) {
  HostileLink hostile;
  hostile.bench.deputy.deactivate();
  EXPECT_NE(hostile.ask({{MIB, PAGE}}, 1).find("not active"), std::string::npos);
  auto queues = kj::heapArray<QueueSettings>({{0, 8, 0, 0, RING}});
  hostile.link.remote->activate(0, kj::mv(queues));
  hostile.link.turn();
  EXPECT_EQ(hostile.ask({{MIB, PAGE}}, 1), "");
  EXPECT_EQ(hostile.bench.usedIndex(), 1);
  hostile.link.remote->reset();
  hostile.link.turn();
  EXPECT_EQ(hostile.link.client.resetsDone, 1u);
  EXPECT_NE(hostile.ask({{MIB, PAGE}}, 1).find("not active"), std::string::npos);
  EXPECT_EQ(hostile.bench.usedIndex(), 1);
}

TEST(RamDeputyOverItsPipe, BRK07_AMillionRangesAreMoreThanAMessageHolds) {
  HostileLink hostile;
  hostile.bench.touch(MIB, PAGE);
  std::vector<Range> ranges;
  for (uint64_t i = 0; i < 1000000; i++)
    ranges.push_back({MIB + i * PAGE, PAGE});
  EXPECT_NE(hostile.ask(ranges), "");
  EXPECT_EQ(*hostile.bench.at(MIB), 0x5a);
  EXPECT_EQ(hostile.link.losses.size(), 1u);
}

TEST(RamDeputyOverItsPipe, BRK07_ADeviceThatWritesItsRingsItselfHasNoDeputy) {
  Link link;
  link.start();
  auto request = KJ_ASSERT_NONNULL(link.device->host).returnChainsRequest();
  request.initGiveBack(1);
  auto said = failureOf([&] { request.send().ignoreResult().wait(link.io.waitScope); });
  EXPECT_NE(said.find("returns its chains itself"), std::string::npos) << said;
}

TEST(RamDeputyOverItsPipe, ReportsAreBounded) {
  Script script;
  script.report = [](DeviceReport::Builder report) { report.initBalloon().initStatistics(65); };
  Link link(script);
  link.start();
  EXPECT_NE(failureOf([&] { link.remote->report().wait(link.io.waitScope); }).find("statistics"),
            std::string::npos);
  link.script.report = [](DeviceReport::Builder report) {
    auto list = report.initBalloon().initStatistics(64);
    list[63].setValue(7);
  };
  auto message = link.remote->report().wait(link.io.waitScope);
  auto report = message->getRoot<DeviceReport>().asReader();
  EXPECT_EQ(report.getBalloon().getStatistics()[63].getValue(), 7u);
}

TEST(RamDeputyOverItsPipe, ReportsThatNeverComeAreNotCollected) {
  Script script;
  script.answersReports = false;
  Link link(script);
  link.start();
  kj::Vector<kj::Promise<void>> waiting;
  for (int i = 0; i < 16; i++)
    waiting.add(link.remote->report().ignoreResult());
  EXPECT_NE(failureOf([&] { link.remote->report().wait(link.io.waitScope); }).find("too many"),
            std::string::npos);
}

}  // namespace
}  // namespace troupe::broker
