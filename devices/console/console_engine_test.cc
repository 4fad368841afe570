#include "devices/console/console_engine.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <random>

#include "devices/console/testing/loop.h"
#include "devices/console/wire.h"
#include "devices/virtio/testing/device_bench.h"

namespace troupe::console {
namespace {

using testing::bytes;
using testing::noise;
using virtio::testing::Buffer;
using virtio::testing::DeviceBench;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;

constexpr uint64_t FEATURES =
    F_SIZE | F_EMERG_WRITE | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX | virtio::F_VERSION_1;

// A nameless console on the user's terminal.
kj::Array<Port> onePort(Line& line) {
  auto ports = kj::heapArrayBuilder<Port>(1);
  ports.add(Port{line, PortKind::CONSOLE, kj::String(), 80, 25, true});
  return ports.finish();
}

// A console behind its actor, with a driver for each queue; the test is the broker, the guest and
// what lies behind the line.
struct Console {
  FakeRam ram;
  kj::Own<Line> line;
  DeviceBench bench;
  kj::Own<FakeDriver> receive;
  kj::Own<FakeDriver> transmit;

  Console()
      : bench(ram, [this](kj::AsyncIoContext& io) -> kj::Own<virtio::DeviceEngine> {
          line = kj::heap<Line>(io.provider->getTimer());
          return kj::heap<ConsoleEngine>(io.unixEventPort, onePort(*line));
        }) {
    bench.attach();
  }

  void activate(uint64_t features = FEATURES) {
    virtio::RingFeatures ring = {(features & virtio::F_INDIRECT_DESC) != 0,
                                 (features & virtio::F_EVENT_IDX) != 0};
    receive = kj::heap<FakeDriver>(ram, 64, ring);
    transmit = kj::heap<FakeDriver>(ram, 64, ring);
    bench.activate(features, {receive.get(), transmit.get()});
  }

  void print(const std::string& text) {
    transmit->add({transmit->readableBuffer(bytes(text))});
    auto used = bench.waitForUsed(TRANSMIT_QUEUE, *transmit);
    EXPECT_EQ(used.written, 0);
  }

  std::string inRam(const Buffer& buffer, size_t size) {
    auto data = ram.bytes(buffer.address, size);
    return std::string(reinterpret_cast<const char*>(data.begin()), data.size());
  }
};

std::string printed(Console& console) {
  OutputLog::Reader reader(console.line->output);
  return testing::takeAll(reader);
}

TEST(ConsoleEngine, DescribesOnePortWithSizeAndEmergencyWrite) {
  Console console;
  auto response = console.bench.describe();
  auto info = response.getInfo();
  EXPECT_EQ(info.getDeviceType(), 3);
  EXPECT_EQ(info.getFeatures() & (F_SIZE | F_MULTIPORT | F_EMERG_WRITE), F_SIZE | F_EMERG_WRITE);
  EXPECT_EQ(info.getQueueSizes().size(), 2);
  ASSERT_EQ(info.getConfig().size(), 12);
  EXPECT_EQ(info.getConfig()[0], 80);
  EXPECT_EQ(info.getConfig()[2], 25);
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(info.getConfigWriteMask()[i], i >= EMERGENCY_WRITE_OFFSET ? 0xff : 0);
  }
}

TEST(ConsoleEngine, OutputOfTheGuestReachesTheLine) {
  Console console;
  console.activate();
  console.print("hello ");
  console.print("world");
  EXPECT_EQ(printed(console), "hello world");
}

TEST(ConsoleEngine, OutputWithoutEventIndexAndIndirectReachesTheLine) {
  Console console;
  console.activate(virtio::F_VERSION_1);
  console.print("plain");
  EXPECT_EQ(printed(console), "plain");
  EXPECT_TRUE(console.bench.interrupted(TRANSMIT_QUEUE));
}

TEST(ConsoleEngine, OutputAddedBeforeDriverOkNeedsNoKick) {
  Console console;
  console.receive = kj::heap<FakeDriver>(console.ram, 64);
  console.transmit = kj::heap<FakeDriver>(console.ram, 64);
  console.transmit->add({console.transmit->readableBuffer(bytes("early"))});
  console.bench.activate(FEATURES, {console.receive.get(), console.transmit.get()});
  console.bench.waitUntil([&]() { return console.transmit->takeUsed() != nullptr; });
  EXPECT_EQ(printed(console), "early");
}

TEST(ConsoleEngine, OneChainOfManyPiecesIsOneText) {
  Console console;
  console.activate();
  std::string text = noise(200000);
  kj::Vector<Buffer> buffers;
  for (size_t i = 0; i < text.size(); i += 10007) {
    buffers.add(console.transmit->readableBuffer(bytes(text.substr(i, 10007))));
  }
  console.transmit->addIndirect(buffers);
  console.bench.waitForUsed(TRANSMIT_QUEUE, *console.transmit);
  EXPECT_TRUE(printed(console) == text);
}

TEST(ConsoleEngine, MoreOutputThanTheRingHoldsArrivesInOrder) {
  Console console;
  console.activate();
  std::string all;
  for (int i = 0; i < 300; ++i) {
    std::string text = "line " + std::to_string(i) + "\n";
    console.print(text);
    all += text;
  }
  EXPECT_EQ(printed(console), all);
}

TEST(ConsoleEngine, InputReachesTheGuestAndLeavesTheRestOfItsBufferAlone) {
  Console console;
  console.activate();
  auto buffer = console.receive->writableBuffer(100);
  console.receive->add({buffer});
  console.line->input.append(bytes("typed"));
  auto used = console.bench.waitForUsed(RECEIVE_QUEUE, *console.receive);
  EXPECT_EQ(used.written, 5);
  EXPECT_EQ(console.inRam(buffer, 5), "typed");
  EXPECT_EQ(console.inRam(buffer, 100).substr(5), std::string(95, char(FakeRam::POISON)));
  EXPECT_TRUE(console.bench.interrupted(RECEIVE_QUEUE));
}

TEST(ConsoleEngine, InputWaitsForABufferAndGoesInPieces) {
  Console console;
  console.activate();
  console.line->input.append(bytes("abcdefgh"));
  console.bench.settle();
  EXPECT_EQ(console.line->input.waiting().size(), 8);
  auto small = console.receive->writableBuffer(3);
  auto large = console.receive->writableBuffer(64);
  console.receive->add({small});
  console.receive->add({large});
  ASSERT_TRUE(console.receive->shouldKick());
  console.bench.kick(RECEIVE_QUEUE);
  console.bench.waitUntil([&]() { return console.line->input.waiting().size() == 0; });
  EXPECT_EQ(console.inRam(small, 3), "abc");
  EXPECT_EQ(console.inRam(large, 5), "defgh");
}

TEST(ConsoleEngine, GuestIsNotAskedToKickForBuffersNobodyNeeds) {
  Console console;
  console.activate();
  console.receive->add({console.receive->writableBuffer(64)});
  console.receive->shouldKick();  // a fresh ring asks for its first
  console.bench.kick(RECEIVE_QUEUE);
  console.bench.settle();
  for (int i = 0; i < 20; ++i) {
    console.receive->add({console.receive->writableBuffer(64)});
    EXPECT_FALSE(console.receive->shouldKick());
  }
}

TEST(ConsoleEngine, InputTypedBeforeTheDriverStartsIsKept) {
  Console console;
  console.line->input.append(bytes("early"));
  console.activate();
  auto buffer = console.receive->writableBuffer(64);
  console.receive->add({buffer});
  auto used = console.bench.waitForUsed(RECEIVE_QUEUE, *console.receive);
  EXPECT_EQ(used.written, 5);
}

TEST(ConsoleEngine, ResizeChangesTheConfigurationAndTellsTheDriver) {
  Console console;
  console.activate();
  console.bench.consoleSize(132, 0x1234);
  console.bench.waitUntil([&]() { return console.bench.host.configChanges.size() == 1; });
  auto& change = console.bench.host.configChanges[0];
  EXPECT_EQ(change.offset, 0);
  ASSERT_EQ(change.data.size(), 4);
  EXPECT_EQ(change.data[0], 132);
  EXPECT_EQ(change.data[1], 0);
  EXPECT_EQ(change.data[2], 0x34);
  EXPECT_EQ(change.data[3], 0x12);
  console.bench.consoleSize(132, 0x1234);  // the same again
  console.bench.settle();
  EXPECT_EQ(console.bench.host.configChanges.size(), 1);
}

TEST(ConsoleEngine, ResizeBeforeDriverOkIsToldAtDriverOk) {
  Console console;
  console.bench.consoleSize(100, 40);
  console.bench.settle();
  EXPECT_EQ(console.bench.host.configChanges.size(), 0);
  console.activate();
  console.bench.waitUntil([&]() { return console.bench.host.configChanges.size() == 1; });
  EXPECT_EQ(console.bench.host.configChanges[0].data[0], 100);
  console.bench.reset();
  console.activate();
  console.bench.settle();
  EXPECT_EQ(console.bench.host.configChanges.size(), 1);
}

TEST(ConsoleEngine, ResizeIsNotToldToADriverWithoutSize) {
  Console console;
  console.activate(virtio::F_VERSION_1);
  console.bench.consoleSize(100, 40);
  console.bench.settle();
  EXPECT_EQ(console.bench.host.configChanges.size(), 0);
}

TEST(ConsoleEngine, EmergencyWritePrintsItsLowByteWithoutAnyQueue) {
  Console console;
  kj::byte word[] = {'!', 0, 0, 0};
  console.bench.writeConfig(EMERGENCY_WRITE_OFFSET, kj::arrayPtr(word, 4));
  console.bench.writeConfig(EMERGENCY_WRITE_OFFSET, kj::arrayPtr(word, 1));
  EXPECT_EQ(printed(console), "!!");
}

TEST(ConsoleEngine, LastOutputStillInTheRingIsDeliveredAtTheEnd) {
  testing::Loop loop;
  FakeRam ram;
  auto memory = ram.memory();
  auto kick = loop.eventFd();
  auto call = loop.eventFd();
  Line line(loop.timer);
  ConsoleEngine engine(loop.events, onePort(line));
  struct Silent final: virtio::DriverLink {
    void configChanged(uint32_t, kj::ArrayPtr<const kj::byte>) override {}
    void needsReset() override {}
  } link;
  FakeDriver transmit(ram, 64);
  auto queues = kj::heapArrayBuilder<virtio::ActiveQueue>(1);
  queues.add(virtio::ActiveQueue{
      TRANSMIT_QUEUE,
      kj::heap<virtio::Virtqueue>(memory, transmit.layout(), transmit.ringFeatures()), kick, call});
  engine.start(memory, FEATURES, queues.finish(), link);
  loop.turn();
  transmit.add({transmit.readableBuffer(bytes("Power down"))});  // and no kick came through
  engine.finish().wait(loop.io.waitScope);
  OutputLog::Reader reader(line.output);
  EXPECT_EQ(testing::takeAll(reader), "Power down");
}

// Hostile guests.

TEST(ConsoleEngine, CON_01_TruncatedConfigurationWritesPrintNothingElse) {
  Console console;
  kj::byte all[] = {1, 2, 3, 4, 5, 6, 7, 8, 'x', 10, 11, 12};
  for (uint32_t offset = 0; offset <= 12; ++offset) {
    for (uint32_t size = 0; offset + size <= 12; ++size) {
      console.bench.writeConfig(offset, kj::arrayPtr(all + offset, size));
    }
  }
  // Only those that cover the low byte of emerg_wr: offsets 0 to 8, each with 4 ends.
  EXPECT_EQ(printed(console), std::string(9 * 4, 'x'));
}

TEST(ConsoleEngine, CON_01_ExtremeSizesArePassedOn) {
  Console console;
  console.activate();
  uint16_t sizes[] = {0, 1, 0xffff};
  for (uint16_t columns : sizes) {
    for (uint16_t rows : sizes)
      console.bench.consoleSize(columns, rows);
  }
  console.bench.waitUntil([&]() { return console.bench.host.configChanges.size() == 9; });
  console.print("alive");
  EXPECT_EQ(printed(console), "alive");
}

TEST(ConsoleEngine, CON_01_ControlMessagesOnAConsoleWithoutControlQueueArePlainText) {
  Console console;
  console.activate();
  for (size_t size = 1; size <= 8; ++size) {
    std::string message("\0\0\0\0\0\0\1\0", size);
    console.print(message);
  }
  EXPECT_EQ(printed(console).size(), 36);
}

TEST(ConsoleEngine, VQ_02_EmptyChainsAreReturned) {
  Console console;
  console.activate();
  console.transmit->add({Buffer{0x1000, 0, false}});
  console.bench.waitForUsed(TRANSMIT_QUEUE, *console.transmit);
  console.transmit->add({console.transmit->writableBuffer(16)});
  auto used = console.bench.waitForUsed(TRANSMIT_QUEUE, *console.transmit);
  EXPECT_EQ(used.written, 0);
  console.line->input.append(bytes("in"));
  console.receive->add({console.receive->readableBuffer(bytes("not for reading"))});
  EXPECT_EQ(console.bench.waitForUsed(RECEIVE_QUEUE, *console.receive).written, 0);
  EXPECT_EQ(console.line->input.waiting().size(), 2);
  EXPECT_EQ(printed(console), "");
}

TEST(ConsoleEngine, VQ_02_LoopOfDescriptorsNeedsReset) {
  Console console;
  console.activate();
  console.transmit->writeDescriptor(0, {0x1000, 16, virtio::DESC_F_NEXT, 0});
  console.transmit->makeAvailable(0);
  console.bench.kick(TRANSMIT_QUEUE);
  console.bench.waitUntil([&]() { return console.bench.host.resetsAsked > 0; });
  EXPECT_EQ(printed(console), "");
}

TEST(ConsoleEngine, VQ_03_HeadBeyondTheQueueNeedsResetAndResetHeals) {
  Console console;
  console.activate();
  console.line->input.append(bytes("in"));
  console.receive->makeAvailable(64);
  console.bench.kick(RECEIVE_QUEUE);
  console.bench.waitUntil([&]() { return console.bench.host.resetsAsked > 0; });
  console.bench.reset();
  console.activate();
  auto buffer = console.receive->writableBuffer(8);
  console.receive->add({buffer});
  EXPECT_EQ(console.bench.waitForUsed(RECEIVE_QUEUE, *console.receive).written, 2);
}

TEST(ConsoleEngine, VQ_04_HugeChainsAreServedInBoundedTurns) {
  Console console;
  console.activate();
  // 64 chains, each many times all of RAM: 128 GiB if copied at one go.
  for (int i = 0; i < 32; ++i) {
    kj::Vector<Buffer> buffers;
    for (int j = 0; j < 60; ++j)
      buffers.add(Buffer{0, uint32_t(4 * FakeRam::MIB), false});
    console.transmit->addIndirect(buffers);
  }
  console.bench.kick(TRANSMIT_QUEUE);
  auto& timer = console.bench.io.provider->getTimer();
  auto start = timer.now();
  for (int i = 0; i < 20; ++i)
    console.bench.describe();  // other calls have their turn
  EXPECT_LT(timer.now() - start, 2 * kj::SECONDS);
  console.bench.reset();
  EXPECT_LT(timer.now() - start, 3 * kj::SECONDS);
}

TEST(ConsoleEngine, VQ_11_ManyUselessRequestsLeaveNothingBehind) {
  Console console;
  console.activate();
  auto round = [&]() {
    for (int i = 0; i < 60; ++i) {
      console.transmit->add({Buffer{0x1000, 0, false}});
      console.receive->add({Buffer{0x1000, 0, true}});
    }
    if (console.line->input.waiting().size() == 0) console.line->input.append(bytes("x"));
    console.bench.kick(TRANSMIT_QUEUE);
    console.bench.kick(RECEIVE_QUEUE);
    for (int i = 0; i < 60; ++i) {
      console.bench.waitUntil([&]() { return console.transmit->takeUsed() != nullptr; });
      console.bench.waitUntil([&]() { return console.receive->takeUsed() != nullptr; });
    }
  };
  for (int i = 0; i < 20; ++i)
    round();
  size_t before = testing::residentBytes();
  for (int i = 0; i < 300; ++i)
    round();
  EXPECT_LT(testing::residentBytes(), before + (8 << 20));  // sanitizers keep some
  EXPECT_EQ(console.line->input.waiting().size(), 1);
}

TEST(ConsoleEngine, VQ_13_KickStormsDoNotStarveTheBroker) {
  Console console;
  console.activate();
  for (int i = 0; i < 2000; ++i) {
    console.bench.kick(TRANSMIT_QUEUE);
    console.bench.kick(RECEIVE_QUEUE);
    if (i % 100 == 0) console.bench.describe();
  }
  console.print("alive");
  EXPECT_EQ(printed(console), "alive");
}

TEST(ConsoleEngine, RST_01_ResetWithOutputAndInputUnderWay) {
  Console console;
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    console.activate();
    for (int i = 0; i < 60; ++i) {
      console.transmit->add({console.transmit->readableBuffer(bytes(noise(random() % 900 + 1)))});
    }
    console.receive->add({console.receive->writableBuffer(1)});
    console.line->input.append(bytes(noise(10)));
    console.bench.kick(TRANSMIT_QUEUE);
    console.bench.kick(RECEIVE_QUEUE);
    console.bench.reset();
    // Nothing is touched any more.
    uint16_t used = console.transmit->usedIndex();
    console.bench.settle();
    EXPECT_EQ(console.transmit->usedIndex(), used);
  }
}

TEST(ConsoleEngine, RST_04_KicksBeforeDriverOkAndAfterResetDoNothing) {
  Console console;
  console.bench.kick(TRANSMIT_QUEUE);
  console.bench.kick(RECEIVE_QUEUE);
  console.bench.settle();
  console.activate();
  console.print("once");
  console.bench.reset();
  console.bench.kick(TRANSMIT_QUEUE);
  console.bench.settle();
  EXPECT_EQ(printed(console), "once");
}

TEST(ConsoleEngine, StuckReaderHoldsTheGuestUpOnlyOnce) {
  Console console;
  console.activate();
  OutputLog::Reader stuck(console.line->output);
  auto& timer = console.bench.io.provider->getTimer();
  auto start = timer.now();
  auto buffer = console.transmit->readableBuffer(bytes(noise(65536)));
  for (int i = 0; i < 100; ++i) {
    console.transmit->add({buffer});
    console.bench.waitForUsed(TRANSMIT_QUEUE, *console.transmit);
  }
  EXPECT_LT(timer.now() - start, 5 * kj::SECONDS);
  EXPECT_EQ(printed(console).size(), OutputLog::CAPACITY);
}

TEST(ConsoleEngine, QueuesTheDriverLeftDisabledAreNotTouched) {
  Console console;
  console.transmit = kj::heap<FakeDriver>(console.ram, 64);
  console.bench.activate(FEATURES, {nullptr, console.transmit.get()});
  console.line->input.append(bytes("nobody asks"));
  console.print("out");
  EXPECT_EQ(printed(console), "out");
}

}  // namespace
}  // namespace troupe::console
