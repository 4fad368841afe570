#include "devices/virtio/flight_log.h"

#include <capnp/serialize.h>
#include <errno.h>
#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

#include "devices/virtio/host_inputs.h"
#include "devices/virtio/queue_flight.h"
#include "devices/virtio/testing/ring_bench.h"

namespace troupe::virtio {
namespace {

using testing::readable;
using testing::Ring;
using testing::writable;

struct Memory {
  explicit Memory(size_t size = FlightLog::LEAST_BYTES) : words(size / 8) {}
  kj::ArrayPtr<kj::byte> bytes() {
    return kj::arrayPtr(reinterpret_cast<kj::byte*>(words.data()), words.size() * 8);
  }
  FlightLog::Head& head() { return *reinterpret_cast<FlightLog::Head*>(words.data()); }

  // Calls `look` with every event that is complete.
  template <typename Look>
  size_t events(Look&& look) {
    size_t count = 0;
    size_t end = head().end.load() / 8;
    for (size_t at = FlightLog::FIRST_EVENT / 8; at < end; count++) {
      auto rest = kj::arrayPtr(reinterpret_cast<const capnp::word*>(words.data()) + at, end - at);
      capnp::FlatArrayMessageReader reader(rest);
      look(reader.getRoot<FlightEvent>());
      at += reader.getEnd() - rest.begin();
    }
    return count;
  }

  std::vector<uint64_t> words;
};

void addReset(FlightLog& log) {
  log.add(0, [](FlightEvent::Builder event) { event.setReset(); });
}

TEST(FlightLog, KeepsEventsInOrder) {
  Memory memory;
  FlightLog log(memory.bytes(), nullptr);
  for (uint32_t i = 0; i < 100; i++) {
    log.add(0, [i](FlightEvent::Builder event) { event.initConfigWritten().setOffset(i); });
  }
  uint32_t next = 0;
  EXPECT_EQ(memory.events([&](FlightEvent::Reader event) {
    EXPECT_EQ(event.getConfigWritten().getOffset(), next++);
  }),
            100);
}

TEST(FlightLog, IsOverWhenItsMemoryIsFullAndHarmsNobody) {
  Memory memory;
  FlightLog log(memory.bytes(), nullptr);
  for (int i = 0; i < 20000; i++)
    addReset(log);
  EXPECT_EQ(memory.head().isFull.load(), 1);
  EXPECT_LE(memory.head().end.load(), memory.bytes().size());
  EXPECT_GT(memory.events([](FlightEvent::Reader event) { EXPECT_TRUE(event.isReset()); }), 1000);
}

TEST(FlightLog, EndsWhenNobodyCarriesItAnyMore) {
  Memory memory;
  FlightLog log(memory.bytes(), nullptr);
  addReset(log);
  memory.head().isFull.store(1);
  addReset(log);
  EXPECT_EQ(memory.events([](FlightEvent::Reader) {}), 1);
}

TEST(FlightLog, AnEventThatDoesNotFitWhatWasSaidEndsIt) {
  Memory memory;
  FlightLog log(memory.bytes(), nullptr);
  log.add(0, [](FlightEvent::Builder event) { event.initConfigWritten().initData(1 << 16); });
  EXPECT_EQ(memory.head().isFull.load(), 1);
  EXPECT_EQ(memory.events([](FlightEvent::Reader) {}), 0);
}

TEST(FlightLog, ASuccessorGoesOnBehindWhatIsThere) {
  Memory memory;
  {
    FlightLog log(memory.bytes(), nullptr);
    addReset(log);
  }
  // What the dead one had begun is no event.
  memset(memory.bytes().begin() + memory.head().end.load(), 0xff, 4096);
  FlightLog log(memory.bytes(), nullptr);
  addReset(log);
  EXPECT_EQ(memory.events([](FlightEvent::Reader event) { EXPECT_TRUE(event.isReset()); }), 2);
}

TEST(FlightLog, BelievesNoEndThatCannotBe) {
  for (uint64_t end : {uint64_t(1) << 20 | 8, ~uint64_t(0), FlightLog::FIRST_EVENT + 1}) {
    Memory memory;
    memory.head().end.store(end);
    FlightLog log(memory.bytes(), nullptr);
    addReset(log);
    EXPECT_EQ(memory.head().end.load(), end);
  }
}

TEST(FlightLog, ThreadsAddWholeEvents) {
  Memory memory(4 << 20);
  FlightLog log(memory.bytes(), nullptr);
  std::vector<std::thread> threads;
  for (uint32_t id = 0; id < 4; id++) {
    threads.emplace_back([&log, id] {
      for (int i = 0; i < 500; i++) {
        log.add(64, [id](FlightEvent::Builder event) {
          auto data = event.initConfigWritten().initData(256);
          memset(data.begin(), id, data.size());
        });
      }
    });
  }
  for (auto& thread : threads)
    thread.join();
  EXPECT_EQ(memory.events([](FlightEvent::Reader event) {
    auto data = event.getConfigWritten().getData();
    ASSERT_EQ(data.size(), 256);
    for (kj::byte byte : data)
      ASSERT_EQ(byte, data[0]);
  }),
            2000);
}

TEST(FlightLog, AnswersAreFoundByChainAndOrder) {
  using Entry = AnswerTable::Entry;
  struct {
    AnswerTable::Head head{3, 0};
    // queue, allocating, kind, ordinal, chain, event, offset, result, its bytes
    Entry entries[3] = {{0, 0, 0, 0, 1, 5, 0, 4, 184, 4},
                        {0, 1, 0, 1, 1, 6, 0, -5, 0, 0},
                        {2, 0, 0, 0, 9, 7, 0, 7, 4096, 1}};
    char data[4] = {'a', 'b', 'c', 'd'};
  } table;
  static_assert(offsetof(decltype(table), data) == 184, "where the first one says");
  Memory memory;
  FlightLog log(memory.bytes(), kj::arrayPtr(&table, 1).asBytes());
  EXPECT_TRUE(log.isReplaying());
  auto first = KJ_ASSERT_NONNULL(log.answerTo(0, 1, 0));
  EXPECT_EQ(first.result, 4);
  EXPECT_EQ(memcmp(first.data.begin(), "abcd", 4), 0);
  auto second = KJ_ASSERT_NONNULL(log.answerTo(0, 1, 1));
  EXPECT_EQ(second.result, -5);
  EXPECT_TRUE(second.allocating);
  EXPECT_TRUE(log.answerTo(0, 1, 2) == nullptr);
  EXPECT_TRUE(log.answerTo(1, 1, 0) == nullptr);
  EXPECT_TRUE(log.answerTo(2, 9, 0) == nullptr) << "its bytes are not there";
}

TEST(HostInputs, WhatTheHostDoesOfItselfComesWhenTheReplayHasComeSoFar) {
  using Entry = AnswerTable::Entry;
  constexpr auto NEWS = HostCall::Kind::NEWS;
  struct {
    AnswerTable::Head head{3, 0};
    Entry entries[3] = {{1, 0, uint8_t(NEWS), 0, 0, 5, 77, 1, 0, 0},
                        {1, 0, uint8_t(HostCall::Kind::WRITE), 1, 0, 6, 0, 12, 0, 0},
                        {1, 0, uint8_t(NEWS), 2, 0, 9, 78, 0, 0, 0}};
  } table;
  Memory memory;
  FlightLog log(memory.bytes(), kj::arrayPtr(&table, 1).asBytes());
  HostInputs inputs(log, 1);

  EXPECT_TRUE(inputs.arrived() == nullptr);
  table.head.reached = 5;
  EXPECT_TRUE(inputs.arrived() == nullptr) << "the fifth is under way, counted from 0";
  table.head.reached = 6;
  EXPECT_EQ(KJ_ASSERT_NONNULL(inputs.arrived()).offset, 77);
  EXPECT_FALSE(inputs.takeArrived(HostCall::Kind::TICK));
  EXPECT_TRUE(inputs.takeArrived(NEWS));
  // What the device asks for itself is answered whenever it asks.
  EXPECT_TRUE(inputs.arrived() == nullptr);
  EXPECT_EQ(inputs.answer(HostCall::Kind::READ).result, -EPROTO) << "it did something else";
  EXPECT_EQ(inputs.answer(HostCall::Kind::WRITE).result, 12);
  inputs.called({HostCall::Kind::WRITE}, 12);
  EXPECT_FALSE(inputs.takeArrived(NEWS));
  table.head.reached = 10;
  EXPECT_TRUE(inputs.takeArrived(NEWS));
  EXPECT_TRUE(inputs.said() == nullptr);
}

TEST(HostInputs, WhatCameIsRecordedWithItsBytes) {
  Memory memory;
  FlightLog log(memory.bytes(), nullptr);
  HostInputs inputs(log, 4);
  char pieces[2][4] = {{'a', 'b', 'c', 'd'}, {'e', 'f', 'g', 'h'}};
  iovec into[] = {{pieces[0], 4}, {pieces[1], 4}};
  HostInputs::Call call{HostCall::Kind::INPUT, 3, 8};
  call.incoming = into;
  inputs.called(call, 6);
  EXPECT_EQ(memory.events([](FlightEvent::Reader event) {
    auto called = event.getCalled();
    EXPECT_EQ(called.getQueue(), 4);
    EXPECT_EQ(called.getNumber(), 0) << "of no chain";
    EXPECT_EQ(called.getOffset(), 3);
    EXPECT_EQ(called.getData().size(), 6);
    EXPECT_EQ(memcmp(called.getData().begin(), "abcdef", 6), 0);
  }),
            1);
}

TEST(FlightLog, ATableOfAStrangersIsReadNoFurtherThanItGoes) {
  AnswerTable::Head head{~uint64_t(0), 0};
  Memory memory;
  FlightLog log(memory.bytes(), kj::arrayPtr(&head, 1).asBytes());
  EXPECT_TRUE(log.answerTo(0, 1, 0) == nullptr);
  FlightLog shorter(memory.bytes(), kj::arrayPtr(&head, 1).asBytes().slice(0, 3));
  EXPECT_TRUE(shorter.answerTo(0, 1, 0) == nullptr);
}

TEST(QueueFlight, RecordsAChainFromItsDescriptorsToItsAnswer) {
  Memory memory;
  FlightLog log(memory.bytes(), nullptr);
  Ring ring;
  ring.queue.record(kj::heap<QueueFlight>(log, 3, ring.queue.size()));
  auto question = ring.driver.readableBuffer("ask"_kj.asBytes());
  auto room = ring.driver.writableBuffer(8);
  uint16_t head = ring.driver.addIndirect({question, room});

  auto chain = KJ_ASSERT_NONNULL(ring.queue.pop());
  kj::byte status = 9;
  ASSERT_TRUE(chain.reserveTail(1));
  chain.writeBytes("no"_kj.asBytes());
  ring.queue.flight()->called(head, {HostCall::Kind::READ, 512, 7}, 2);
  chain.writeTail(kj::arrayPtr(&status, 1));
  ring.queue.push(kj::mv(chain), 2);

  int step = 0;
  EXPECT_EQ(memory.events([&](FlightEvent::Reader event) {
    switch (step++) {
      case 0: {
        auto taken = event.getTaken();
        EXPECT_EQ(taken.getQueue(), 3);
        EXPECT_EQ(taken.getNumber(), 1);
        EXPECT_EQ(taken.getHead(), head);
        ASSERT_EQ(taken.getDescriptors().size(), 3);
        EXPECT_FALSE(taken.getDescriptors()[0].getInIndirect());
        EXPECT_TRUE(taken.getDescriptors()[2].getInIndirect());
        EXPECT_EQ(taken.getDescriptors()[2].getAddress(), room.address);
        EXPECT_EQ(kj::str(taken.getReadable().asChars()), "ask");
        EXPECT_EQ(taken.getTail()[7], testing::FakeRam::POISON);
        break;
      }
      case 1: {
        auto call = event.getCalled();
        EXPECT_EQ(call.getNumber(), 1);
        EXPECT_EQ(call.getOffset(), 512);
        EXPECT_EQ(call.getResult(), 2);
        break;
      }
      case 2: {
        auto answered = event.getAnswered();
        EXPECT_EQ(answered.getWritten(), 2);
        EXPECT_EQ(kj::str(answered.getBytes().asChars()), "no");
        EXPECT_EQ(answered.getTail()[7], 9);
        break;
      }
    }
  }),
            3);
}

TEST(QueueFlight, RecordsWhatBreaksARing) {
  Memory memory;
  FlightLog log(memory.bytes(), nullptr);
  Ring ring;
  ring.queue.record(kj::heap<QueueFlight>(log, 0, ring.queue.size()));
  ring.driver.writeDescriptor(0, Descriptor{0, 16, DESC_F_NEXT, 99});
  ring.driver.makeAvailable(0);
  EXPECT_TRUE(ring.queue.pop() == nullptr);
  EXPECT_TRUE(ring.queue.pop() == nullptr);
  EXPECT_EQ(memory.events([](FlightEvent::Reader event) {
    EXPECT_TRUE(event.getTaken().getRefused());
    EXPECT_FALSE(event.getTaken().getIsIndex());
    ASSERT_EQ(event.getTaken().getDescriptors().size(), 1);
    EXPECT_EQ(event.getTaken().getDescriptors()[0].getNext(), 99);
  }),
            1);
}

TEST(QueueFlight, AnswersACallThatIsNotKnownWithAnError) {
  Memory memory;
  kj::byte nothing[sizeof(AnswerTable::Head)] = {};
  FlightLog log(memory.bytes(), nothing);
  Ring ring;
  ring.queue.record(kj::heap<QueueFlight>(log, 0, ring.queue.size()));
  uint16_t head = ring.driver.add({ring.driver.writableBuffer(8)});
  EXPECT_TRUE(ring.queue.pop() != nullptr);
  EXPECT_EQ(ring.queue.flight()->answer(head).result, -EPROTO);
}

}  // namespace
}  // namespace troupe::virtio
