// Drivers that break the rules of the ring, against every device as it ships, in its jail. What
// each case does inside the ring is devices/virtio/virtqueue_hostile_test.cc's.
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <cstring>
#include <vector>

#include "devices/virtio/wire.h"
#include "tests/hostile/devices.h"
#include "tests/hostile/ring_guest.h"

namespace troupe::hostile {
namespace {

using virtio::Descriptor;
using virtio::testing::Buffer;
using virtio::testing::FakeDriver;

constexpr uint16_t NEXT = virtio::DESC_F_NEXT;
constexpr uint16_t WRITE = virtio::DESC_F_WRITE;
constexpr uint16_t INDIRECT = virtio::DESC_F_INDIRECT;

class RingHostile: public ::testing::TestWithParam<const char*> {};
INSTANTIATE_ON_EVERY_DEVICE(RingHostile);

// One chain, its head in descriptor 0.
struct Case {
  const char* name;
  std::vector<Descriptor> descriptors;
  std::vector<Descriptor> table;  // at TABLE
};

// The ring refuses the chain: nothing is answered, and nothing but a reset heals it.
void expectRefused(RingGuest& guest, uint16_t queue, const char* name) {
  FakeDriver& driver = guest.driver(queue);
  guest.process->kick(queue);
  if (guest.looksAtOnce(queue)) {
    guest.waitForNeedsReset();
  } else {
    guest.process->settle();
  }
  EXPECT_EQ(driver.usedIndex(), 0) << name;
  guest.reset();
  guest.expectWell();
}

void expectEachRefused(RingGuest& guest, const std::vector<Case>& cases, uint64_t tableAddress) {
  for (uint16_t queue = 0; queue < guest.queueCount(); queue++) {
    for (const Case& item : cases) {
      SCOPED_TRACE(item.name);
      guest.activate();
      FakeDriver& driver = guest.driver(queue);
      for (uint16_t i = 0; i < item.descriptors.size(); i++)
        driver.writeDescriptor(i, item.descriptors[i]);
      if (!item.table.empty()) {
        size_t bytes = item.table.size() * sizeof(Descriptor);
        memcpy(guest.ram.bytes(tableAddress, bytes).begin(), item.table.data(), bytes);
      }
      driver.makeAvailable(0);
      expectRefused(guest, queue, item.name);
    }
  }
  guest.expectUntouched();
  guest.expectNoGrowth();
}

TEST_P(RingHostile, VQ01_RingsThatCannotBeNeedAResetWhichHeals) {
  RingGuest guest(GetParam());
  guest.activate();
  const virtio::RingLayout good = guest.driver().layout();
  guest.reset();
  auto with = [&](uint16_t size) {
    auto layout = good;
    layout.size = size;
    return layout;
  };
  auto at = [&](uint64_t virtio::RingLayout::*part, uint64_t address) {
    auto layout = good;
    layout.*part = address;
    return layout;
  };
  std::vector<virtio::RingLayout> layouts = {
      with(0),      with(3),      with(good.size - 1), with(2 * good.size),
      with(0x8000), with(0x8001), with(0xffff)};
  for (auto part : {&virtio::RingLayout::descriptorTable, &virtio::RingLayout::availableRing,
                    &virtio::RingLayout::usedRing}) {
    for (uint64_t address : {good.usedRing + 1, FIRST_END - 16, FIRST_END, VICTIM_END - 16,
                             HIGH_END - 16, UINT64_MAX - 15, UINT64_MAX - 1}) {
      layouts.push_back(at(part, address));
    }
  }
  for (auto& layout : layouts) {
    SCOPED_TRACE(kj::str(layout.size, " ", kj::hex(layout.descriptorTable), " ",
                         kj::hex(layout.availableRing), " ", kj::hex(layout.usedRing))
                     .cStr());
    guest.activate(layout);
    guest.waitForNeedsReset();
    guest.reset();
    guest.expectWell();
  }
  guest.expectUntouched();
}

TEST_P(RingHostile, VQ01_IndicesWrap) {
  RingGuest guest(GetParam());
  guest.activate();
  FakeDriver& driver = guest.driver();
  uint32_t atOnce = driver.size() / guest.goodRequest().size();
  uint32_t answered = 0;
  while (answered < 0x10000 + 2 * atOnce) {
    for (uint32_t i = 0; i < atOnce; i++)
      driver.add(guest.goodRequest());
    guest.process->kick(guest.goodQueue());
    uint32_t left = atOnce;
    guest.process->waitUntil([&] {
      for (; left > 0 && driver.takeUsed() != nullptr; left--) {
      }
      return left == 0;
    });
    answered += atOnce;
  }
  EXPECT_FALSE(guest.askedForReset());
  guest.reset();
  guest.expectUntouched();
  guest.expectNoGrowth();
}

TEST_P(RingHostile, VQ02_LoopsAndChainsLongerThanTheQueue) {
  RingGuest guest(GetParam());
  uint64_t table = guest.ram.allocate(4 * MIB);
  std::vector<Descriptor> tooMany;
  for (uint32_t i = 0; i < guest.largestQueue() + 1u; i++)
    tooMany.push_back({VICTIM + 16 * i, 8, NEXT | WRITE, uint16_t(i + 1)});
  tooMany.back().flags = WRITE;
  uint32_t bytes = tooMany.size() * sizeof(Descriptor);
  std::vector<Descriptor> loop = {{VICTIM, 8, NEXT | WRITE, 1}, {VICTIM, 8, NEXT | WRITE, 0}};
  expectEachRefused(guest,
                    {{"a loop of one", {{VICTIM, 8, NEXT | WRITE, 0}}, {}},
                     {"a loop of two", loop, {}},
                     {"a loop of nothing", {{VICTIM, 0, NEXT | WRITE, 0}}, {}},
                     {"a loop in a table", {{table, 32, INDIRECT, 0}}, loop},
                     {"a table longer than the queue", {{table, bytes, INDIRECT, 0}}, tooMany}},
                    table);
}

TEST_P(RingHostile, VQ02_DescriptorsOfNoLengthAreNoHarm) {
  RingGuest guest(GetParam());
  guest.activate();
  uint16_t queue = guest.goodQueue();
  FakeDriver& driver = guest.driver();
  kj::Vector<Buffer> empty;
  for (auto& buffer : guest.goodRequest()) {
    empty.add(buffer);
    empty.add(Buffer{UINT64_MAX, 0, buffer.writable});
  }
  driver.add(empty);
  EXPECT_LE(guest.process->waitForUsed(queue, driver).written, guest.goodWritable());
  for (bool writable : {false, true}) {  // nothing but these
    driver.add({Buffer{0, 0, writable}});
    EXPECT_EQ(guest.process->waitForUsed(queue, driver).written, 0u);
  }
  EXPECT_FALSE(guest.askedForReset());
  guest.reset();
  guest.expectUntouched();
  guest.expectNoGrowth();
}

TEST_P(RingHostile, VQ03_HeadsAndLinksOutsideTheTable) {
  RingGuest guest(GetParam());
  uint16_t last = guest.largestQueue();
  uint64_t table = guest.ram.allocate(4096);
  std::vector<Descriptor> outside = {{VICTIM, 8, NEXT | WRITE, 2}, {VICTIM, 8, WRITE, 0}};
  expectEachRefused(
      guest,
      {{"next behind the table", {{VICTIM, 8, NEXT | WRITE, last}}, {}},
       {"next far behind the table", {{VICTIM, 8, NEXT | WRITE, 0xffff}}, {}},
       {"next behind an indirect table", {{table, 32, INDIRECT, 0}}, outside},
       {"readable after writable", {{VICTIM, 8, NEXT | WRITE, 1}, {VICTIM, 8, 0, 0}}, {}}},
      table);
  for (uint16_t head : {last, uint16_t(0x8000), uint16_t(0xffff)}) {
    guest.activate();
    guest.driver().makeAvailable(head);
    expectRefused(guest, guest.goodQueue(), "a head outside the table");
  }
}

// The device's own header where only it may write, or no room for an answer: whatever it makes of
// it, it is answered within what is writable, or the ring is broken.
TEST_P(RingHostile, VQ03_EveryBufferTurnedRound) {
  RingGuest guest(GetParam());
  auto request = guest.goodRequest();
  for (uint32_t turned = 1; turned < 1u << request.size(); turned++) {
    guest.activate();
    kj::Vector<Buffer> buffers;
    uint32_t room = 0;
    for (size_t i = 0; i < request.size(); i++) {
      buffers.add(request[i]);
      if (turned >> i & 1) buffers[i].writable = !buffers[i].writable;
      room += buffers[i].writable ? buffers[i].length : 0;
    }
    FakeDriver& driver = guest.driver();
    driver.add(buffers);
    guest.process->kick(guest.goodQueue());
    kj::Maybe<FakeDriver::Used> used;
    guest.process->waitUntil(
        [&] { return guest.askedForReset() || (used = driver.takeUsed()) != nullptr; });
    KJ_IF_MAYBE (answer, used) {
      EXPECT_LE(answer->written, room);
    }
    guest.reset();
    guest.expectWell();
  }
  guest.expectUntouched();
}

TEST_P(RingHostile, VQ04_AvailableIndicesThatJumpOrGoBack) {
  RingGuest guest(GetParam());
  for (uint16_t index : {uint16_t(guest.driver().size() + 1), uint16_t(0x7fff), uint16_t(0x8000),
                         uint16_t(0xffff)}) {
    guest.activate();
    guest.driver().writeAvailableIndex(index);
    expectRefused(guest, guest.goodQueue(), "an index that jumps");
  }
  guest.activate();
  for (int i = 0; i < 3; i++) {
    guest.driver().add(guest.goodRequest());
    guest.process->waitForUsed(guest.goodQueue(), guest.driver());
  }
  guest.driver().writeAvailableIndex(2);
  guest.process->kick(guest.goodQueue());
  guest.waitForNeedsReset();
  guest.reset();
  guest.expectWell();
  guest.expectUntouched();
}

TEST_P(RingHostile, VQ05_LengthsAndAddressesThatOverflow) {
  RingGuest guest(GetParam());
  std::vector<Case> cases;
  for (uint16_t flags : {uint16_t(0), WRITE}) {
    for (auto [address, length] :
         std::initializer_list<std::pair<uint64_t, uint32_t>>{{VICTIM, UINT32_MAX},
                                                              {VICTIM, 1u << 31},
                                                              {VICTIM_END - 1, UINT32_MAX},
                                                              {VICTIM_END - 8, 9},
                                                              {VICTIM_END, 1},
                                                              {VICTIM - 1, 1},
                                                              {HIGH_END - 1, 2},
                                                              {UINT64_MAX, 1},
                                                              {UINT64_MAX - 3, 8},
                                                              {UINT64_MAX - 4095, 8192},
                                                              {1ull << 63, 1}}) {
      cases.push_back({"a buffer outside of RAM", {{address, length, flags, 0}}, {}});
      // The first buffer alone would be fine.
      cases.push_back({"behind one that is inside",
                       {{VICTIM, 64, uint16_t(flags | NEXT), 1}, {address, length, flags, 0}},
                       {}});
    }
  }
  // 2^32 bytes and one more, the same ones again and again.
  std::vector<Descriptor> sum(5, {HIGH, uint32_t(GIB), NEXT, 0});
  for (uint16_t i = 0; i < 4; i++)
    sum[i].next = i + 1;
  sum[4] = {HIGH, 1, 0, 0};
  cases.push_back({"a sum that overflows", sum, {}});
  expectEachRefused(guest, cases, 0);
}

TEST_P(RingHostile, VQ05_TheLastByteOfRamIsRam) {
  RingGuest guest(GetParam());
  guest.activate();
  FakeDriver& driver = guest.driver();
  driver.add({Buffer{FIRST_END - 1, 1, false}});
  guest.process->waitForUsed(guest.goodQueue(), driver);
  EXPECT_FALSE(guest.askedForReset());
  guest.reset();
  guest.expectWell();
}

TEST_P(RingHostile, VQ06_BuffersAcrossRegionsOrIntoTheHole) {
  RingGuest guest(GetParam());
  std::vector<Case> cases;
  for (uint64_t address : {FIRST_END - 8, VICTIM - 8, VICTIM_END - 8, HIGH - 8, HIGH_END - 8})
    cases.push_back({"across the end of a region", {{address, 16, WRITE, 0}}, {}});
  expectEachRefused(guest, cases, 0);
}

TEST_P(RingHostile, VQ08_IndirectTablesOfEveryWrongShape) {
  RingGuest guest(GetParam());
  uint64_t table = guest.ram.allocate(4096);
  std::vector<Descriptor> inside = {{VICTIM, 8, WRITE, 0}};
  std::vector<Case> cases = {
      {"a table with a next", {{table, 16, INDIRECT | NEXT, 1}, {VICTIM, 8, WRITE, 0}}, inside},
      {"a table in a table", {{table, 16, INDIRECT, 0}}, {{table + 16, 16, INDIRECT, 0}}},
      {"a table in itself", {{table, 16, INDIRECT, 0}}, {{table, 16, INDIRECT, 0}}},
      {"a table outside of RAM", {{VICTIM_END - 8, 16, INDIRECT, 0}}, {}},
      {"a table in the hole", {{FIRST_END, 16, INDIRECT, 0}}, {}},
      {"a table across regions", {{FIRST_END - 16, 32, INDIRECT, 0}}, {}}};
  for (uint32_t length : {0u, 1u, 15u, 17u, 24u, 0xfffffff0u, UINT32_MAX})
    cases.push_back({"a table of this length", {{table, length, INDIRECT, 0}}, inside});
  expectEachRefused(guest, cases, table);

  guest.activate(guest.features() & ~virtio::F_INDIRECT_DESC);
  guest.driver().writeDescriptor(0, {table, 16, INDIRECT, 0});
  guest.driver().makeAvailable(0);
  expectRefused(guest, guest.goodQueue(), "not negotiated");
}

TEST_P(RingHostile, VQ08_ATableAtAnOddAddressWorks) {
  RingGuest guest(GetParam());
  guest.activate();
  std::vector<Descriptor> entries;
  for (auto& buffer : guest.goodRequest()) {
    uint16_t flags = (buffer.writable ? WRITE : 0) | NEXT;
    entries.push_back({buffer.address, buffer.length, flags, uint16_t(entries.size() + 1)});
  }
  entries.back().flags &= ~NEXT;
  uint32_t bytes = entries.size() * sizeof(Descriptor);
  uint64_t table = guest.ram.allocate(bytes + 16) + 3;
  memcpy(guest.ram.bytes(table, bytes).begin(), entries.data(), bytes);
  guest.driver().writeDescriptor(0, {table, bytes, INDIRECT, 0});
  guest.driver().makeAvailable(0);
  EXPECT_LE(guest.process->waitForUsed(guest.goodQueue(), guest.driver()).written,
            guest.goodWritable());
  guest.reset();
  guest.expectUntouched();
}

}  // namespace
}  // namespace troupe::hostile
