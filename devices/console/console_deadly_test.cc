// Requests that the device dies of, with this test as troupe, broker and driver.
#include <capnp/message.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "devices/console/console.capnp.h"
#include "devices/console/console_profile.h"
#include "devices/console/testing/loop.h"
#include "devices/console/wire.h"
#include "devices/virtio/testing/deadly_request.h"

namespace troupe::console {
namespace {

using virtio::testing::DEADLY_BYTES;
using virtio::testing::FakeDriver;
using virtio::testing::FakeRam;
using virtio::testing::HandedFd;
using virtio::testing::ProcessBench;

constexpr uint64_t FEATURES =
    F_MULTIPORT | virtio::F_VERSION_1 | virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX;
constexpr uint16_t QUEUES = 4;

// A named port on standard streams.
struct Fixture {
  Fixture() {
    auto port = message.initRoot<ConsoleConfig>().initPorts(1)[0];
    port.setBackend(ConsolePort::Backend::STDIO);
    port.setName("port");
    for (auto& queue : queues)
      queue = kj::heap<FakeDriver>(ram, uint16_t(64));
  }

  FakeDriver& queue(uint16_t index) { return *queues[index]; }
  uint16_t add(uint16_t index, kj::ArrayPtr<const kj::byte> bytes) {
    return queue(index).add({queue(index).readableBuffer(bytes)});
  }
  uint16_t say(uint16_t event) {
    ControlMessage message = {0, event, 1};
    return add(CONTROL_TRANSMIT_QUEUE, kj::arrayPtr(&message, 1).asBytes());
  }

  void begin(bool isFirst) {
    HandedFd fds[] = {{"in", 0, input.theirs}, {"out", 0, output}, {"journal", 0, kept.fd()}};
    process = kj::heap<ProcessBench>(ram, CONSOLE_PROFILE, "troupe-console", QUEUES, fds,
                                     message.getRoot<capnp::AnyPointer>().asReader(),
                                     "devices/dying_devices");
    process->attach();
    auto request = process->activateRequest(FEATURES, {&queue(0), &queue(1), &queue(2), &queue(3)});
    request.setResumed(!isFirst);
    request.setOwnFault(!isFirst);
    // It may die before it answers.
    answer = request.send().ignoreResult().eagerlyEvaluate([](kj::Exception&&) {});
  }
  // Two processes die of what is on its way; another one lives.
  void outliveTwo() {
    for (bool isFirst : {true, false}) {
      begin(isFirst);
      virtio::testing::expectDeath(*process);
      answer = nullptr;
      process = nullptr;
    }
    begin(false);
  }

  virtio::testing::KeptFile kept;
  FakeRam ram{8 * FakeRam::MIB};
  kj::Own<FakeDriver> queues[QUEUES];
  testing::Pair input = testing::pipePair();
  kj::AutoCloseFd output = testing::memoryFile();
  capnp::MallocMessageBuilder message;
  kj::Own<ProcessBench> process;
  kj::Promise<void> answer = nullptr;
};

TEST(ConsoleDeadly, OutputThatTwoProcessesDiedOfIsNotPrintedAndPutAside) {
  Fixture f;
  std::string deadly(DEADLY_BYTES, 'x');
  f.add(TRANSMIT_QUEUE, testing::bytes("before\n"));
  f.add(TRANSMIT_QUEUE, testing::bytes(deadly));
  f.add(TRANSMIT_QUEUE, testing::bytes("behind\n"));
  f.outliveTwo();
  for (int i = 0; i < 3; i++)
    EXPECT_EQ(f.process->waitForUsed(TRANSMIT_QUEUE, f.queue(TRANSMIT_QUEUE)).written, 0u);
  // What a process had written and not yet noted comes again: which of the two came to that is
  // theirs.
  auto printed = [&] {
    std::string all = testing::content(f.output);
    while (all.compare(0, 14, "before\nbefore\n") == 0)
      all.erase(0, 7);
    return all;
  };
  f.process->waitUntil([&] { return printed().size() >= 14; });
  EXPECT_EQ(printed(), "before\nbehind\n");
  f.kept.expectOne(TRANSMIT_QUEUE, testing::bytes(deadly));
}

TEST(ConsoleDeadly, AControlMessageThatTwoProcessesDiedOfSaysNothing) {
  Fixture f;
  ControlMessage message = {0, DEVICE_READY, 1};
  kj::byte deadly[DEADLY_BYTES] = {};
  memcpy(deadly, &message, sizeof(message));
  f.add(CONTROL_TRANSMIT_QUEUE, deadly);
  f.outliveTwo();
  auto& from = f.queue(CONTROL_TRANSMIT_QUEUE);
  auto& to = f.queue(CONTROL_RECEIVE_QUEUE);
  f.process->waitForUsed(CONTROL_TRANSMIT_QUEUE, from);
  to.add({to.writableBuffer(64)});
  if (to.shouldKick()) f.process->kick(CONTROL_RECEIVE_QUEUE);
  f.process->settle();
  EXPECT_TRUE(to.takeUsed() == nullptr);
  f.say(DEVICE_READY);
  f.process->waitForUsed(CONTROL_TRANSMIT_QUEUE, from);
  EXPECT_EQ(f.process->waitForUsed(CONTROL_RECEIVE_QUEUE, to).written, sizeof(ControlMessage));
  f.kept.expectOne(CONTROL_TRANSMIT_QUEUE, deadly);
}

TEST(ConsoleDeadly, BuffersThatTwoProcessesDiedOverComeBackEmpty) {
  Fixture f;
  auto& data = f.queue(RECEIVE_QUEUE);
  uint16_t deadly = data.add({data.writableBuffer(DEADLY_BYTES)});
  auto buffer = data.writableBuffer(64);
  uint16_t innocent = data.add({buffer});
  KJ_SYSCALL(write(f.input.ours, "typed", 5));
  f.say(PORT_READY);
  f.say(PORT_OPEN);
  f.outliveTwo();
  auto used = f.process->waitForUsed(RECEIVE_QUEUE, data);
  EXPECT_EQ(used.head, deadly);
  EXPECT_EQ(used.written, 0u);
  used = f.process->waitForUsed(RECEIVE_QUEUE, data);
  EXPECT_EQ(used.head, innocent);
  ASSERT_EQ(used.written, 5u);
  EXPECT_EQ(memcmp(f.ram.bytes(buffer.address, 5).begin(), "typed", 5), 0);
  f.kept.expectOne(RECEIVE_QUEUE, nullptr);
}

TEST(ConsoleDeadly, ABufferForControlMessagesThatTwoProcessesDiedOverComesBackEmpty) {
  Fixture f;
  auto& to = f.queue(CONTROL_RECEIVE_QUEUE);
  uint16_t deadly = to.add({to.writableBuffer(DEADLY_BYTES)});
  uint16_t innocent = to.add({to.writableBuffer(64)});
  f.say(DEVICE_READY);
  f.outliveTwo();
  auto used = f.process->waitForUsed(CONTROL_RECEIVE_QUEUE, to);
  EXPECT_EQ(used.head, deadly);
  EXPECT_EQ(used.written, 0u);
  used = f.process->waitForUsed(CONTROL_RECEIVE_QUEUE, to);
  EXPECT_EQ(used.head, innocent);
  EXPECT_EQ(used.written, sizeof(ControlMessage));
  f.kept.expectOne(CONTROL_RECEIVE_QUEUE, nullptr);
}

}  // namespace
}  // namespace troupe::console
