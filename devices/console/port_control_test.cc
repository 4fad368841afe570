#include "devices/console/port_control.h"

#include <endian.h>
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <string>
#include <vector>

namespace troupe::console {
namespace {

// A console of 80 columns and 25 rows, a port named "agent" that nobody on the host has open, and a
// console named "second" of unknown size.
kj::Array<PortTraits> threePorts() {
  auto all = kj::heapArrayBuilder<PortTraits>(3);
  all.add(PortTraits{PortKind::CONSOLE, kj::String(), 80, 25, true});
  all.add(PortTraits{PortKind::SERIAL, kj::str("agent"), 80, 25, false});
  all.add(PortTraits{PortKind::CONSOLE, kj::str("second"), 0, 0, true});
  return all.finish();
}

struct Bench {
  kj::EventLoop loop;
  kj::WaitScope waitScope{loop};
  PortControl control{threePorts()};

  void say(uint16_t event, uint16_t value, uint32_t port = 0) {
    control.take(ControlMessage{htole32(port), htole16(event), htole16(value)});
  }

  // All that the device has to say: "1 name agent", "0 open 1".
  std::vector<std::string> said() {
    std::vector<std::string> all;
    kj::byte message[PortControl::LONGEST_MESSAGE];
    while (size_t size = control.next(kj::arrayPtr(message, sizeof(message))))
      all.push_back(inWords(kj::arrayPtr(message, size)));
    return all;
  }

  static std::string inWords(kj::ArrayPtr<const kj::byte> message) {
    ControlMessage head;
    KJ_ASSERT(message.size() >= sizeof(head));
    memcpy(&head, message.begin(), sizeof(head));
    auto more = message.slice(sizeof(head), message.size());
    std::string rest(reinterpret_cast<const char*>(more.begin()), more.size());
    std::string port = std::to_string(le32toh(head.port)) + " ";
    std::string value = std::to_string(le16toh(head.value));
    switch (le16toh(head.event)) {
      case DEVICE_ADD:
        return port + "add";
      case CONSOLE_PORT:
        return port + "console";
      case RESIZE: {
        ControlResize size;
        KJ_ASSERT(more.size() == sizeof(size));
        memcpy(&size, more.begin(), sizeof(size));
        return port + std::to_string(le16toh(size.columns)) + "x" +
               std::to_string(le16toh(size.rows));
      }
      case PORT_NAME:
        return port + "name " + rest;
      case PORT_OPEN:
        return port + "open " + value;
    }
    return port + "?";
  }
};

using Words = std::vector<std::string>;

TEST(PortControl, SaysNothingUnasked) {
  Bench bench;
  EXPECT_FALSE(bench.control.hasNext());
  bench.control.hostChanged(1, true);
  bench.control.resize(0, 100, 40);
  EXPECT_EQ(bench.said(), Words{});
}

TEST(PortControl, NamesEachPortToADriverThatIsReady) {
  Bench bench;
  bench.say(DEVICE_READY, 1);
  EXPECT_EQ(bench.said(), (Words{"0 add", "1 add", "2 add"}));
  bench.say(PORT_READY, 1, 0);
  EXPECT_EQ(bench.said(), (Words{"0 console", "0 80x25", "0 open 1"}));
  bench.say(PORT_READY, 1, 1);
  EXPECT_EQ(bench.said(), (Words{"1 name agent"}));
  bench.say(PORT_READY, 1, 2);
  EXPECT_EQ(bench.said(), (Words{"2 console", "2 name second", "2 open 1"}));
}

TEST(PortControl, TellsNothingOfAPortTheDriverCannotUse) {
  Bench bench;
  bench.say(PORT_READY, 1, 1);
  bench.said();
  bench.say(PORT_READY, 0, 1);
  bench.control.hostChanged(1, true);
  EXPECT_EQ(bench.said(), Words{});
  bench.say(DEVICE_READY, 0);
  EXPECT_EQ(bench.said(), Words{});
}

TEST(PortControl, TellsOfComingsAndGoingsOnTheHost) {
  Bench bench;
  bench.say(PORT_READY, 1, 1);
  bench.said();
  bench.control.hostChanged(1, true);
  EXPECT_EQ(bench.said(), (Words{"1 open 1"}));
  bench.control.hostChanged(1, false);
  EXPECT_EQ(bench.said(), (Words{"1 open 0"}));
  // Before it was told, the one who came has left: it need not know.
  bench.control.hostChanged(1, true);
  bench.control.hostChanged(1, false);
  EXPECT_EQ(bench.said(), Words{});
}

TEST(PortControl, ADriverLearnsThatSomebodyElseMayBeThere) {
  Bench bench;
  bench.say(PORT_READY, 1, 1);
  bench.control.hostChanged(1, true);
  bench.said();
  bench.control.hostChanged(1, false);
  bench.control.hostChanged(1, true);
  EXPECT_EQ(bench.said(), (Words{"1 open 0", "1 open 1"}));
  bench.control.hostChanged(1, true);  // both before anybody looked
  EXPECT_EQ(bench.said(), (Words{"1 open 0", "1 open 1"}));
}

TEST(PortControl, TellsTheSizesOfConsolesAlone) {
  Bench bench;
  for (uint32_t port = 0; port < 3; ++port)
    bench.say(PORT_READY, 1, port);
  bench.said();
  bench.control.resize(0, 132, 43);
  bench.control.resize(1, 132, 43);
  bench.control.resize(2, 0xffff, 1);
  EXPECT_EQ(bench.said(), (Words{"0 132x43", "2 65535x1"}));
  bench.control.resize(0, 0, 43);  // not known any more
  EXPECT_EQ(bench.said(), Words{});
}

TEST(PortControl, TheDriverOpensAndClosesItsSide) {
  Bench bench;
  EXPECT_FALSE(bench.control.guest(2).isOpen());
  bench.say(PORT_OPEN, 1, 2);
  EXPECT_TRUE(bench.control.guest(2).isOpen());
  EXPECT_FALSE(bench.control.guest(1).isOpen());
  bench.say(PORT_OPEN, 0, 2);
  EXPECT_FALSE(bench.control.guest(2).isOpen());
}

TEST(PortControl, WhoWaitsIsToldWhenThereIsSomethingToSay) {
  Bench bench;
  auto next = bench.control.whenNext();
  EXPECT_FALSE(next.poll(bench.waitScope));
  bench.say(DEVICE_READY, 1);
  EXPECT_TRUE(next.poll(bench.waitScope));
}

TEST(PortControl, CON_01_UnknownEventsPortsAndValuesChangeNothing) {
  Bench bench;
  for (uint32_t event = 0; event <= 0xffff; ++event) {
    for (uint32_t port : {3u, 4u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
      if (event != DEVICE_READY) bench.say(event, 1, port);
    }
    bool known = event == DEVICE_READY || event == PORT_READY || event == PORT_OPEN;
    if (!known) bench.say(event, 1, 0);
  }
  for (uint16_t value : {2, 3, 0x8000, 0xffff}) {
    bench.say(DEVICE_READY, value);
    bench.say(PORT_READY, value, 1);
    bench.say(PORT_OPEN, value, 1);
  }
  EXPECT_EQ(bench.said(), Words{});
  EXPECT_FALSE(bench.control.guest(0).isOpen());
  EXPECT_FALSE(bench.control.guest(1).isOpen());
}

TEST(PortControl, CON_01_StormsOfQuestionsAreAnsweredOnce) {
  Bench bench;
  for (int i = 0; i < 1000000; ++i) {
    bench.say(DEVICE_READY, 1);
    bench.say(PORT_READY, 1, i % 3);
    bench.say(PORT_OPEN, i % 2, i % 3);
    bench.control.hostChanged(1, i % 2);
  }
  EXPECT_EQ(bench.said().size(), 3 + 3 + 2 + 3);
}

}  // namespace
}  // namespace troupe::console
