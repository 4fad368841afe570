#include "broker/serial_port.h"

#include <gtest/gtest.h>
#include <kj/async-io.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "broker/loop_mailbox.h"
#include "broker/memory_map.h"
#include "broker/pci_fakes.h"

namespace troupe::broker {
namespace {

constexpr uint8_t TRANSMITTER_EMPTY = 0x60;

class Bench {
 public:
  Bench()
      : io(kj::setupAsyncIo()),
        mailbox(io.unixEventPort, kj::AutoCloseFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))),
        serving(mailbox.serve().eagerlyEvaluate(nullptr)) {
    int ends[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
    host = kj::AutoCloseFd(ends[0]);
    guest = kj::AutoCloseFd(ends[1]);
    port = kj::heap<SerialPort>(interrupts, mailbox, io.unixEventPort, int(guest));
  }

  void write(uint64_t offset, uint8_t value) { port->busWrite(offset, kj::arrayPtr(&value, 1)); }
  uint8_t read(uint64_t offset) {
    uint8_t value;
    port->busRead(offset, kj::arrayPtr(&value, 1));
    return value;
  }
  std::string hostReads(size_t most = 65536) {
    std::string text(most, 0);
    ssize_t got = recv(host, &text[0], most, MSG_DONTWAIT);
    text.resize(got > 0 ? got : 0);
    return text;
  }
  void turn() { io.waitScope.poll(); }
  bool line() { return interrupts.lines[SERIAL_GSI]; }

  // What the guest sends until the socket is full, as a driver does that waits for room.
  std::string fill() {
    std::string sent;
    while (read(5) & TRANSMITTER_EMPTY) {
      write(0, 'a' + sent.size() % 26);
      sent += 'a' + sent.size() % 26;
    }
    return sent;
  }

  kj::AsyncIoContext io;
  LoopMailbox mailbox;
  kj::Promise<void> serving;
  FakeInterrupts interrupts;
  kj::AutoCloseFd host;
  kj::AutoCloseFd guest;
  kj::Own<SerialPort> port;
};

TEST(SerialPort, PassesBytesOnAtOnce) {
  Bench bench;
  bench.write(0, 'h');
  bench.write(0, 'i');
  EXPECT_EQ(bench.hostReads(), "hi");
}

TEST(SerialPort, LosesNothingWhenTheSocketIsFull) {
  Bench bench;
  std::string sent = bench.fill();
  bench.turn();
  EXPECT_EQ(bench.read(5) & TRANSMITTER_EMPTY, 0);
  EXPECT_FALSE(bench.line());
  bench.write(1, 2);  // asks for the interrupt, which cannot come yet
  EXPECT_FALSE(bench.line());

  std::string received;
  for (std::string part; !(part = bench.hostReads()).empty(); bench.turn())
    received += part;
  EXPECT_EQ(received, sent);
  EXPECT_EQ(bench.read(5) & TRANSMITTER_EMPTY, TRANSMITTER_EMPTY);
  EXPECT_TRUE(bench.line());
}

TEST(SerialPort, TellsWhenWhatWasSentHasBeenPassedOn) {
  Bench bench;
  bool passedOn = false;
  auto wait = [&] {
    passedOn = false;
    return bench.port->whenPassedOn().then([&] { passedOn = true; }).eagerlyEvaluate(nullptr);
  };
  auto first = wait();
  bench.turn();
  EXPECT_TRUE(passedOn);  // there was nothing

  std::string sent = bench.fill();
  auto second = wait();
  bench.turn();
  EXPECT_FALSE(passedOn);
  std::string received = bench.hostReads(1 << 20);
  EXPECT_LT(received.size(), sent.size());  // the rest is in the FIFO still
  bench.turn();
  EXPECT_TRUE(passedOn);
  EXPECT_EQ(received + bench.hostReads(1 << 20), sent);
}

// The vCPU finds the socket full, and it drains before the main loop looks.
TEST(SerialPort, ResumesWhenTheSocketDrainedBeforeTheLoopLooked) {
  Bench bench;
  std::string sent = bench.fill();
  std::string received = bench.hostReads(1 << 20);
  bench.turn();
  received += bench.hostReads(1 << 20);
  EXPECT_EQ(received, sent);
  EXPECT_EQ(bench.read(5) & TRANSMITTER_EMPTY, TRANSMITTER_EMPTY);
}

TEST(SerialPort, GivesAnEdgePerByteToAnInterruptDriver) {
  Bench bench;
  bench.write(1, 2);
  auto before = bench.interrupts.lineChanges;
  bench.write(0, 'a');
  EXPECT_EQ(bench.interrupts.lineChanges, before + 2);  // down and up again
  EXPECT_TRUE(bench.line());
}

TEST(SerialPort, DeliversInputAsTheGuestMakesRoom) {
  Bench bench;
  bench.write(1, 1);
  std::string input(1000, 0);
  for (size_t i = 0; i < input.size(); ++i)
    input[i] = 'a' + i % 26;
  KJ_SYSCALL(send(bench.host, input.data(), input.size(), 0));
  bench.turn();
  EXPECT_TRUE(bench.line());
  std::string received;
  for (int turns = 0; turns < 1000 && received.size() < input.size(); ++turns) {
    while (bench.read(5) & 1)
      received += bench.read(0);
    EXPECT_FALSE(bench.line());
    bench.turn();
  }
  EXPECT_EQ(received, input);
}

// Clearing the FIFO makes room as reading it does; a driver that waits for interrupts never looks.
TEST(SerialPort, GoesOnReceivingAfterTheGuestHasClearedItsFifo) {
  Bench bench;
  bench.write(1, 1);
  std::string input(20, 'x');
  KJ_SYSCALL(send(bench.host, input.data(), input.size(), 0));
  bench.turn();
  bench.write(2, 0x03);  // on, and without what has come so far
  EXPECT_FALSE(bench.line());
  bench.turn();
  EXPECT_TRUE(bench.line());
  std::string received;
  while (bench.read(5) & 1)
    received += bench.read(0);
  EXPECT_EQ(received, "xxxx");
}

TEST(SerialPort, SwallowsOutputWhenThePeerIsGone) {
  Bench bench;
  bench.host = nullptr;
  for (int i = 0; i < 100; ++i)
    bench.write(0, 'x');
  bench.turn();
  EXPECT_EQ(bench.read(5) & TRANSMITTER_EMPTY, TRANSMITTER_EMPTY);
}

TEST(SerialPort, AnswersAccessesOfAnyWidthByteByByte) {
  Bench bench;
  kj::byte four[4] = {0, 0, 0, 0};
  bench.port->busRead(5, kj::arrayPtr(four, 4));
  EXPECT_EQ(four[0] & TRANSMITTER_EMPTY, TRANSMITTER_EMPTY);
}

}  // namespace
}  // namespace troupe::broker
