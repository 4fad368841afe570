// A console of several ports, behind its actor.
#include <endian.h>
#include <gtest/gtest.h>
#include <kj/debug.h>

#include <random>

#include "devices/console/console_engine.h"
#include "devices/console/testing/console_driver.h"
#include "devices/console/testing/loop.h"
#include "devices/console/wire.h"
#include "devices/virtio/testing/device_bench.h"

namespace troupe::console {
namespace {

using testing::bytes;
using testing::ConsoleDriver;
using testing::Heard;
using testing::noise;
using virtio::testing::Buffer;
using virtio::testing::DeviceBench;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;

constexpr uint16_t PORTS = 3;
constexpr uint16_t AGENT = 1;   // a plain port with a name; nobody on the host has it open at first
constexpr uint16_t SECOND = 2;  // a console without size
constexpr uint16_t QUEUES = 2 + 2 * PORTS;

// The test is the broker, the guest and what lies behind the lines.
struct Console {
  FakeRam ram;
  kj::Vector<kj::Own<Line>> lines;
  DeviceBench bench;
  ConsoleDriver driver{bench, PORTS};

  Console()
      : bench(ram, [this](kj::AsyncIoContext& io) -> kj::Own<virtio::DeviceEngine> {
          auto ports = kj::heapArrayBuilder<Port>(PORTS);
          for (uint16_t i = 0; i < PORTS; ++i)
            lines.add(kj::heap<Line>(io.provider->getTimer()));
          ports.add(Port{*lines[0], PortKind::CONSOLE, kj::String(), 80, 25, true});
          ports.add(Port{*lines[AGENT], PortKind::SERIAL, kj::str("agent"), 0, 0, false});
          ports.add(Port{*lines[SECOND], PortKind::CONSOLE, kj::String(), 0, 0, false});
          lines[AGENT]->host.set(false);
          return kj::heap<ConsoleEngine>(io.unixEventPort, ports.finish());
        }) {
    bench.attach();
  }

  std::string printed(uint16_t port) {
    OutputLog::Reader reader(lines[port]->output);
    return testing::takeAll(reader);
  }

  // As Linux does, up to open consoles and a closed port.
  void greet() {
    driver.activate();
    driver.offerControl(32);
    driver.say(DEVICE_READY, 1);
    for (uint32_t port = 0; port < PORTS; ++port)
      EXPECT_EQ(driver.hear(), (Heard{port, DEVICE_ADD, 1, ""}));
    for (uint32_t port = 0; port < PORTS; ++port)
      driver.say(PORT_READY, 1, port);
    EXPECT_EQ(driver.hear(), (Heard{0, CONSOLE_PORT, 1, ""}));
    EXPECT_EQ(driver.hear(), (Heard{0, RESIZE, 1, std::string("\x50\0\x19\0", 4)}));
    EXPECT_EQ(driver.hear(), (Heard{0, PORT_OPEN, 1, ""}));
    EXPECT_EQ(driver.hear(), (Heard{AGENT, PORT_NAME, 1, "agent"}));
    EXPECT_EQ(driver.hear(), (Heard{SECOND, CONSOLE_PORT, 1, ""}));
    EXPECT_EQ(driver.hear(), (Heard{SECOND, PORT_OPEN, 1, ""}));
    driver.say(PORT_OPEN, 1, 0);
    driver.say(PORT_OPEN, 1, SECOND);
  }

  void expectAlive() {
    driver.print(0, "alive");
    EXPECT_EQ(printed(0), "alive");
    EXPECT_EQ(bench.host.resetsAsked, 0);
  }
};

TEST(Multiport, DescribesItsPortsAndTheirQueues) {
  Console console;
  auto response = console.bench.describe();
  auto info = response.getInfo();
  EXPECT_TRUE(info.getFeatures() & F_MULTIPORT);
  EXPECT_EQ(info.getQueueSizes().size(), QUEUES);
  EXPECT_EQ(info.getConfig()[4], PORTS);  // max_nr_ports, §5.3.4
  EXPECT_EQ(info.getConfigWriteMask()[4], 0);
}

TEST(Multiport, ASinglePortWithANameOrThatIsNoConsoleHasControlQueuesToo) {
  testing::Loop loop;
  Line line(loop.timer);
  for (bool named : {false, true}) {
    auto ports = kj::heapArrayBuilder<Port>(1);
    ports.add(Port{line, named ? PortKind::CONSOLE : PortKind::SERIAL, kj::str(named ? "name" : ""),
                   0, 0, false});
    ConsoleEngine engine(loop.events, ports.finish());
    auto description = engine.describe();
    EXPECT_TRUE(description.features & F_MULTIPORT);
    EXPECT_EQ(description.queueSizes.size(), 4);
  }
}

TEST(Multiport, EachPortHasItsOwnOutput) {
  Console console;
  console.greet();
  console.driver.print(0, "zero");
  console.driver.print(AGENT, "one");
  console.driver.print(SECOND, "two");
  EXPECT_EQ(console.printed(0), "zero");
  EXPECT_EQ(console.printed(AGENT), "one");
  EXPECT_EQ(console.printed(SECOND), "two");
}

TEST(Multiport, InputWaitsUntilTheGuestHasOpenedThePort) {
  Console console;
  console.greet();
  console.lines[AGENT]->input.append(bytes("question"));
  auto buffer = console.driver.offer(AGENT);
  console.bench.settle();
  EXPECT_EQ(console.driver.receive(AGENT).usedIndex(), 0);
  console.driver.say(PORT_OPEN, 1, AGENT);
  EXPECT_EQ(console.driver.input(AGENT, buffer), "question");
  console.driver.say(PORT_OPEN, 0, AGENT);
  auto next = console.driver.offer(AGENT);
  console.lines[AGENT]->input.append(bytes("another"));
  console.bench.settle();
  EXPECT_EQ(console.driver.receive(AGENT).usedIndex(), 1);
  console.driver.say(PORT_OPEN, 1, AGENT);
  EXPECT_EQ(console.driver.input(AGENT, next), "another");
}

TEST(Multiport, EachPortHasItsOwnInput) {
  Console console;
  console.greet();
  auto zero = console.driver.offer(0), two = console.driver.offer(SECOND);
  console.lines[SECOND]->input.append(bytes("to the second"));
  console.lines[0]->input.append(bytes("to the first"));
  EXPECT_EQ(console.driver.input(SECOND, two), "to the second");
  EXPECT_EQ(console.driver.input(0, zero), "to the first");
}

TEST(Multiport, ANewSizeOfTheTerminalIsToldBothWays) {
  Console console;
  console.greet();
  console.bench.consoleSize(132, 43);
  EXPECT_EQ(console.driver.hear(), (Heard{0, RESIZE, 1, std::string("\x84\0\x2b\0", 4)}));
  console.bench.waitUntil([&]() { return console.bench.host.configChanges.size() == 1; });
}

TEST(Multiport, ComingsAndGoingsOnTheHostAreTold) {
  Console console;
  console.greet();
  console.lines[AGENT]->host.set(true);
  EXPECT_EQ(console.driver.hear(), (Heard{AGENT, PORT_OPEN, 1, ""}));
  console.lines[AGENT]->host.set(false);
  console.lines[AGENT]->host.set(true);
  EXPECT_EQ(console.driver.hear(), (Heard{AGENT, PORT_OPEN, 0, ""}));
  EXPECT_EQ(console.driver.hear(), (Heard{AGENT, PORT_OPEN, 1, ""}));
}

TEST(Multiport, ADriverWithoutMultiportHasPortZero) {
  Console console;
  console.driver.activate(F_SIZE | virtio::F_VERSION_1);
  console.driver.print(0, "plain");
  EXPECT_EQ(console.printed(0), "plain");
  auto buffer = console.driver.offer(0);
  console.lines[0]->input.append(bytes("typed"));
  EXPECT_EQ(console.driver.input(0, buffer), "typed");
  // Whatever it puts into queues that are none without MULTIPORT.
  auto& agent = console.driver.transmit(AGENT);
  agent.add({agent.readableBuffer(bytes("nobody hears"))});
  auto& control = console.driver.queue(CONTROL_TRANSMIT_QUEUE);
  control.add({control.readableBuffer(bytes(std::string(8, '\0')))});
  for (uint16_t queue = CONTROL_RECEIVE_QUEUE; queue < QUEUES; ++queue)
    console.bench.kick(queue);
  console.bench.settle();
  EXPECT_EQ(agent.usedIndex(), 0);
  EXPECT_EQ(control.usedIndex(), 0);
  EXPECT_EQ(console.printed(AGENT), "");
}

TEST(Multiport, AfterAResetAllIsSaidAgain) {
  Console console;
  for (int round = 0; round < 3; ++round) {
    console.greet();
    console.bench.reset();
  }
}

TEST(Multiport, AStuckReaderOfOnePortHoldsNoOtherUp) {
  Console console;
  console.greet();
  OutputLog::Reader stuck(console.lines[0]->output);
  auto& transmit = console.driver.transmit(0);
  auto buffer = transmit.readableBuffer(bytes(noise(65536)));
  for (int i = 0; i < 20; ++i)
    transmit.add({buffer});
  console.bench.kick(TRANSMIT_QUEUE);
  console.bench.waitUntil([&]() { return console.lines[0]->output.congested(); });
  console.driver.print(SECOND, "goes on");
  EXPECT_TRUE(console.lines[0]->output.congested());
  EXPECT_EQ(console.printed(SECOND), "goes on");
}

TEST(Multiport, LastOutputOfEveryPortIsDelivered) {
  testing::Loop loop;
  FakeRam ram;
  auto memory = ram.memory();
  auto kick = loop.eventFd(), otherKick = loop.eventFd(), call = loop.eventFd();
  Line first(loop.timer), second(loop.timer);
  auto ports = kj::heapArrayBuilder<Port>(2);
  ports.add(Port{first, PortKind::CONSOLE, kj::String(), 0, 0, false});
  ports.add(Port{second, PortKind::CONSOLE, kj::String(), 0, 0, false});
  ConsoleEngine engine(loop.events, ports.finish());
  struct Silent final: virtio::DriverLink {
    void configChanged(uint32_t, kj::ArrayPtr<const kj::byte>) override {}
    void needsReset() override {}
  } link;
  FakeDriver one(ram, 64), two(ram, 64);
  auto queues = kj::heapArrayBuilder<virtio::ActiveQueue>(2);
  auto ring = [&](FakeDriver& driver) {
    return kj::heap<virtio::Virtqueue>(memory, driver.layout(), driver.ringFeatures());
  };
  queues.add(virtio::ActiveQueue{transmitQueueOf(0), ring(one), kick, call});
  queues.add(virtio::ActiveQueue{transmitQueueOf(1), ring(two), otherKick, call});
  engine.start(memory, ConsoleDriver::FEATURES, queues.finish(), link);
  loop.turn();
  one.add({one.readableBuffer(bytes("one"))});  // and no kick came through
  two.add({two.readableBuffer(bytes("two"))});
  engine.finish().wait(loop.io.waitScope);
  OutputLog::Reader readsOne(first.output), readsTwo(second.output);
  EXPECT_EQ(testing::takeAll(readsOne), "one");
  EXPECT_EQ(testing::takeAll(readsTwo), "two");
}

// Hostile guests.

TEST(Multiport, CON_01_ControlMessagesCutShortOrTooLong) {
  Console console;
  console.driver.activate();
  kj::byte ready[32] = {};  // DEVICE_READY of port 0
  ready[6] = 1;
  for (size_t size = 1; size < sizeof(ControlMessage); ++size)
    console.driver.sayRaw(kj::arrayPtr(ready, size));
  auto& control = console.driver.queue(CONTROL_TRANSMIT_QUEUE);
  control.add({Buffer{0x1000, 0, false}});
  console.bench.waitForUsed(CONTROL_TRANSMIT_QUEUE, control);
  control.add({control.writableBuffer(64)});
  EXPECT_EQ(console.bench.waitForUsed(CONTROL_TRANSMIT_QUEUE, control).written, 0);
  console.driver.offerControl(8);
  console.bench.settle();
  EXPECT_EQ(console.driver.queue(CONTROL_RECEIVE_QUEUE).usedIndex(), 0);
  console.driver.sayRaw(kj::arrayPtr(ready, sizeof(ready)));  // what follows is nothing
  EXPECT_EQ(console.driver.hear(), (Heard{0, DEVICE_ADD, 1, ""}));
  console.expectAlive();
}

TEST(Multiport, CON_01_UnknownPortsAndEventsAreNothing) {
  Console console;
  console.greet();
  for (uint32_t port : {PORTS + 0u, 8u, 31u, 0x80000000u, 0xffffffffu}) {
    for (uint16_t event : {PORT_READY, PORT_OPEN, PORT_NAME, uint16_t(8), uint16_t(0xffff)})
      console.driver.say(event, 1, port);
  }
  for (uint16_t event : {DEVICE_ADD, DEVICE_REMOVE, CONSOLE_PORT, RESIZE, PORT_NAME})
    console.driver.say(event, 1, 0);
  console.bench.settle();
  EXPECT_EQ(console.driver.queue(CONTROL_RECEIVE_QUEUE).usedIndex(),
            console.driver.heardMessages());
  console.expectAlive();
}

TEST(Multiport, CON_01_BuffersTooSmallForAMessageComeBackEmpty) {
  Console console;
  console.driver.activate();
  console.driver.offerControl(3, 7);
  auto& control = console.driver.queue(CONTROL_RECEIVE_QUEUE);
  console.driver.say(DEVICE_READY, 1);
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(console.bench.waitForUsed(CONTROL_RECEIVE_QUEUE, control).written, 0);
  control.add({control.readableBuffer(bytes("not for writing"))});
  console.driver.say(PORT_READY, 1, AGENT);  // its name is all there is to say
  EXPECT_EQ(console.bench.waitForUsed(CONTROL_RECEIVE_QUEUE, control).written, 0);
  console.expectAlive();
}

TEST(Multiport, CON_01_StormsOfControlMessagesDoNotStarveTheBrokerOrGrow) {
  Console console;
  console.driver.activate();
  auto& control = console.driver.queue(CONTROL_TRANSMIT_QUEUE);
  std::mt19937 random(1);
  kj::Vector<Buffer> messages;
  for (int i = 0; i < 60; ++i) {
    uint16_t events[] = {DEVICE_READY, PORT_READY, PORT_OPEN};
    ControlMessage message = {uint32_t(random() % (PORTS + 1)), events[random() % 3],
                              uint16_t(random() % 2)};
    messages.add(control.readableBuffer(kj::arrayPtr(&message, 1).asBytes()));
  }
  auto storm = [&](int rounds) {
    for (int round = 0; round < rounds; ++round) {
      for (auto& message : messages)
        control.add({message});
      console.bench.kick(CONTROL_TRANSMIT_QUEUE);
      int taken = 0;
      console.bench.waitUntil([&]() {
        while (control.takeUsed() != nullptr)
          ++taken;
        return taken == 60;
      });
      if (round % 100 == 0) console.bench.describe();
    }
  };
  storm(50);
  size_t before = testing::residentBytes();
  storm(500);
  EXPECT_LT(testing::residentBytes(), before + (8 << 20));  // sanitizers keep some
  console.expectAlive();
}

TEST(Multiport, VQ_03_ABrokenControlQueueNeedsResetAndResetHeals) {
  for (uint16_t queue : {CONTROL_RECEIVE_QUEUE, CONTROL_TRANSMIT_QUEUE}) {
    Console console;
    console.driver.activate();
    console.driver.say(DEVICE_READY, 1);
    console.driver.queue(queue).makeAvailable(64);
    console.bench.kick(queue);
    console.bench.waitUntil([&]() { return console.bench.host.resetsAsked > 0; });
    console.bench.reset();
    console.greet();
  }
}

TEST(Multiport, RST_01_ResetInTheMiddleOfTheConversation) {
  Console console;
  std::mt19937 random(1);
  for (int round = 0; round < 30; ++round) {
    console.driver.activate();
    console.driver.offerControl(random() % 12 + 1);
    auto& control = console.driver.queue(CONTROL_TRANSMIT_QUEUE);
    for (int i = random() % 40; i > 0; --i) {
      ControlMessage message = {uint32_t(random() % PORTS), uint16_t(random() % 2 ? 0 : 3), 1};
      control.add({control.readableBuffer(kj::arrayPtr(&message, 1).asBytes())});
    }
    console.bench.kick(CONTROL_TRANSMIT_QUEUE);
    console.lines[AGENT]->host.set(round % 2);
    console.bench.consoleSize(round + 1, 10);
    console.bench.reset();
    // Nothing is touched any more.
    uint16_t used = console.driver.queue(CONTROL_RECEIVE_QUEUE).usedIndex();
    console.lines[AGENT]->host.set(round % 2 == 0);
    console.bench.settle();
    EXPECT_EQ(console.driver.queue(CONTROL_RECEIVE_QUEUE).usedIndex(), used);
  }
}

}  // namespace
}  // namespace troupe::console
