#include "vmm/observe/event_log.h"

#include <capnp/dynamic.h>
#include <capnp/message.h>
#include <capnp/schema.h>
#include <gtest/gtest.h>
#include <kj/async.h>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "vmm/observe/event_reader.h"
#include "vmm/observe/event_text.h"

namespace troupe {
namespace {

struct Bench {
  void add(uint32_t count = 1) {
    for (uint32_t i = 0; i < count; i++)
      log.add([](VmEvent::Builder event) { event.setPaused(); });
  }
  EventReader::Client reader(uint64_t after = 0) { return kj::heap<EventReaderActor>(log, after); }

  struct Answer {
    kj::Vector<uint64_t> numbers;
    uint64_t lost;
    bool isEnd;
  };
  kj::Promise<Answer> ask(EventReader::Client from, bool wait) {
    auto request = from.nextRequest();
    request.setWait(wait);
    return request.send().then([](auto&& response) {
      Answer answer;
      for (auto event : response.getEvents())
        answer.numbers.add(event.getSequence());
      answer.lost = response.getLost();
      answer.isEnd = response.getIsEnd();
      return answer;
    });
  }
  Answer next(EventReader::Client from) { return ask(from, false).wait(scope); }

  kj::EventLoop loop;
  kj::WaitScope scope{loop};
  EventLog log;
};

TEST(EventLog, ReadersComeForEachEventOnceAtTheirOwnPace) {
  Bench bench;
  auto early = bench.reader();
  EXPECT_EQ(bench.next(early).numbers.size(), 0u);
  bench.add(3);
  auto late = bench.reader();
  EXPECT_EQ(bench.next(early).numbers.size(), 3u);
  bench.add();
  auto answer = bench.next(early);
  ASSERT_EQ(answer.numbers.size(), 1u);
  EXPECT_EQ(answer.numbers[0], 4u);
  EXPECT_EQ(bench.next(late).numbers.size(), 4u);
  EXPECT_EQ(bench.next(bench.reader(3)).numbers[0], 4u);
}

TEST(EventLog, OneThatLagsIsToldHowManyItLost) {
  Bench bench;
  auto reader = bench.reader();
  bench.add(EventLog::MOST + 10);
  auto answer = bench.next(reader);
  EXPECT_EQ(answer.lost, 10u);
  EXPECT_EQ(answer.numbers[0], 11u);
  EXPECT_EQ(answer.numbers.size(), EventReaderActor::MOST_AT_ONCE);
  answer = bench.next(reader);
  EXPECT_EQ(answer.lost, 0u);
  EXPECT_EQ(answer.numbers[0], 11u + EventReaderActor::MOST_AT_ONCE);
}

TEST(EventLog, KeepsNoMoreThanItsLastHoweverManyCome) {
  Bench bench;
  bench.add(10 * EventLog::MOST);
  EXPECT_EQ(bench.log.last(), 10 * EventLog::MOST);
  EXPECT_EQ(bench.log.last() - bench.log.first() + 1, EventLog::MOST);
}

TEST(EventLog, WhoWaitsIsAnsweredByTheNextEvent) {
  Bench bench;
  auto one = bench.reader();
  auto two = bench.reader();
  auto first = bench.ask(one, true);
  auto second = bench.ask(two, true);
  EXPECT_FALSE(first.poll(bench.scope));
  bench.add();
  EXPECT_EQ(first.wait(bench.scope).numbers.size(), 1u);
  EXPECT_EQ(second.wait(bench.scope).numbers.size(), 1u);
}

TEST(EventLog, OneReaderAsksOneThingAtATime) {
  Bench bench;
  auto reader = bench.reader();
  auto first = bench.ask(reader, true);
  EXPECT_ANY_THROW(bench.ask(reader, true).wait(bench.scope));
  bench.add();
  EXPECT_EQ(first.wait(bench.scope).numbers.size(), 1u);
}

TEST(EventLog, TheEndIsToldToWhoWaitsAndToWhoComesLater) {
  Bench bench;
  auto reader = bench.reader();
  auto waiting = bench.ask(reader, true);
  EXPECT_FALSE(waiting.poll(bench.scope));
  bench.log.end();
  EXPECT_TRUE(waiting.wait(bench.scope).isEnd);
  EXPECT_TRUE(bench.ask(bench.reader(), true).wait(bench.scope).isEnd);
  bench.add();
  EXPECT_EQ(bench.log.last(), 0u) << "nothing comes after the end";
}

TEST(EventLog, TheEndIsBehindTheLastEvent) {
  Bench bench;
  auto reader = bench.reader();
  bench.add(EventReaderActor::MOST_AT_ONCE + 1);
  bench.log.end();
  EXPECT_FALSE(bench.next(reader).isEnd);
  EXPECT_TRUE(bench.next(reader).isEnd);
}

TEST(EventLog, KnowsWhenNobodyReadsAnyMore) {
  Bench bench;
  EXPECT_TRUE(bench.log.untilNobodyReads().poll(bench.scope));
  auto one = kj::heap<EventLog::Reader>(bench.log);
  auto two = kj::heap<EventLog::Reader>(bench.log);
  auto nobody = bench.log.untilNobodyReads();
  one = nullptr;
  EXPECT_FALSE(nobody.poll(bench.scope));
  two = nullptr;
  EXPECT_TRUE(nobody.poll(bench.scope));
}

TEST(EventLog, AReaderThatLeavesWhileItWaitsIsGone) {
  Bench bench;
  {
    auto waiting = bench.ask(bench.reader(), true);
    EXPECT_FALSE(waiting.poll(bench.scope));
    EXPECT_EQ(bench.log.readerCount(), 1u);
  }
  bench.scope.poll();
  EXPECT_EQ(bench.log.readerCount(), 0u);
  bench.add();
}

// What each kind of event is called, and what stands of it in the manual of those who read them.
TEST(EventText, EachEventHasANameOfItsOwnAndIsDocumented) {
  std::ifstream file("docs/running.md");
  std::stringstream manual;
  manual << file.rdbuf();
  std::set<std::string> names;
  for (auto kind : capnp::Schema::from<VmEvent>().getUnionFields()) {
    capnp::MallocMessageBuilder message;
    auto event = message.initRoot<VmEvent>();
    capnp::DynamicStruct::Builder made(event);
    if (kind.getProto().isGroup()) {
      made.init(kind);
    } else {
      made.set(kind, capnp::VOID);
    }
    auto line = eventLine(event);
    std::smatch name;
    std::string text = line.cStr();
    ASSERT_TRUE(std::regex_search(text, name, std::regex("\"event\":\"([a-z-]+)\""))) << text;
    EXPECT_NE(name[1], "unknown") << kind.getProto().getName().cStr();
    EXPECT_TRUE(names.insert(name[1]).second) << name[1];
    EXPECT_NE(manual.str().find("`" + name[1].str() + "`"), std::string::npos) << name[1];
  }
  EXPECT_GT(names.size(), 10u);
}

TEST(EventText, IsOneLineWhateverItsWordsAre) {
  Bench bench;
  bench.log.add(
      [](VmEvent::Builder event) { event.initGuestPanicked().setDetail("a\n\"b\"\x1b[2J \xff"); });
  auto line = eventLine(bench.log.at(1));
  EXPECT_TRUE(line.startsWith("{\"sequence\":1,\"monotonicNs\":"));
  for (char c : line)
    EXPECT_TRUE(c >= 0x20 && c < 0x7f) << line.cStr();
  EXPECT_TRUE(line.endsWith(R"("event":"guest-panicked","detail":"a\\n\"b\"\\x1b[2J \\xff"})"))
      << line.cStr();
}

}  // namespace
}  // namespace troupe
