#include "broker/uart.h"

#include <gtest/gtest.h>

namespace troupe::broker {
namespace {

constexpr uint8_t DATA = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7;

void receive(Uart& uart, const std::string& text) {
  uart.receive(kj::arrayPtr(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
}

TEST(Uart, KeepsSentBytesUntilTheyAreTaken) {
  Uart uart;
  EXPECT_EQ(uart.read(LSR) & 0x60, 0x60);
  uart.write(DATA, 'a');
  uart.write(DATA, 'b');
  EXPECT_EQ(uart.read(LSR) & 0x60, 0);
  ASSERT_EQ(uart.sent().size(), 2u);
  uart.dropSent(1);
  EXPECT_EQ(uart.sent()[0], 'b');
  EXPECT_EQ(uart.read(LSR) & 0x60, 0);
  uart.dropSent(1);
  EXPECT_EQ(uart.read(LSR) & 0x60, 0x60);
}

TEST(Uart, DropsWhatADriverSendsIntoAFullFifo) {
  Uart uart;
  for (int i = 0; i < 40; ++i)
    uart.write(DATA, uint8_t(i));
  ASSERT_EQ(uart.sent().size(), Uart::FIFO_SIZE);
  EXPECT_EQ(uart.sent()[15], 15);
}

TEST(Uart, InterruptsOnceForAnEmptyTransmitter) {
  Uart uart;
  uart.write(IER, 2);
  EXPECT_TRUE(uart.interrupting());  // asked for while there is room
  EXPECT_EQ(uart.read(IIR), 0x02);
  EXPECT_FALSE(uart.interrupting());  // reading took it
  uart.write(DATA, 'a');
  EXPECT_FALSE(uart.interrupting());
  uart.dropSent(1);
  EXPECT_TRUE(uart.interrupting());
  uart.write(DATA, 'b');
  EXPECT_FALSE(uart.interrupting());
}

TEST(Uart, InterruptsForReceivedBytesUntilTheyAreRead) {
  Uart uart;
  receive(uart, "xy");
  EXPECT_FALSE(uart.interrupting());
  uart.write(IER, 1);
  EXPECT_TRUE(uart.interrupting());
  EXPECT_EQ(uart.read(IIR), 0x04);
  EXPECT_EQ(uart.read(DATA), 'x');
  EXPECT_TRUE(uart.interrupting());
  EXPECT_EQ(uart.read(LSR) & 1, 1);
  EXPECT_EQ(uart.read(DATA), 'y');
  EXPECT_FALSE(uart.interrupting());
  EXPECT_EQ(uart.read(LSR) & 1, 0);
  EXPECT_EQ(uart.read(DATA), 0);
}

TEST(Uart, ReportsReceivedBytesBeforeAnEmptyTransmitter) {
  Uart uart;
  uart.write(IER, 3);
  receive(uart, "x");
  EXPECT_EQ(uart.read(IIR), 0x04);
  uart.read(DATA);
  EXPECT_EQ(uart.read(IIR), 0x02);
  EXPECT_EQ(uart.read(IIR), 0x01);
}

TEST(Uart, ReportsAnOverrunOnce) {
  Uart uart;
  receive(uart, std::string(Uart::FIFO_SIZE + 1, 'x'));
  EXPECT_EQ(uart.room(), 0u);
  EXPECT_EQ(uart.read(LSR) & 2, 2);
  EXPECT_EQ(uart.read(LSR) & 2, 0);
}

// The probes of Linux's 8250 driver (autoconfig()).
TEST(Uart, IsA16550AToLinux) {
  Uart uart;
  uart.write(IER, 0x0f);
  EXPECT_EQ(uart.read(IER), 0x0f);
  uart.write(IER, 0);
  EXPECT_EQ(uart.read(IER), 0);
  uart.write(MCR, 0x1a);
  EXPECT_EQ(uart.read(MSR) & 0xf0, 0x90);  // loopback
  uart.write(MCR, 0);
  uart.write(FCR, 1);
  EXPECT_EQ(uart.read(IIR) >> 6, 3);
  uart.write(LCR, 0xbf);
  EXPECT_NE(uart.read(2), 0);  // no extended feature register
  uart.write(LCR, 0);
  uart.write(SCR, 0x5a);
  EXPECT_EQ(uart.read(SCR), 0x5a);
}

TEST(Uart, ReturnsSentBytesInLoopback) {
  Uart uart;
  uart.write(MCR, 0x10);
  uart.write(DATA, 'z');
  EXPECT_EQ(uart.sent().size(), 0u);
  EXPECT_EQ(uart.read(DATA), 'z');
}

TEST(Uart, KeepsTheDivisorApartFromData) {
  Uart uart;
  uart.write(LCR, 0x80);
  uart.write(DATA, 0x0c);
  uart.write(IER, 0x01);
  EXPECT_EQ(uart.read(DATA), 0x0c);
  EXPECT_EQ(uart.read(IER), 0x01);
  uart.write(LCR, 0x03);
  EXPECT_EQ(uart.sent().size(), 0u);
  EXPECT_EQ(uart.read(IER), 0);
}

TEST(Uart, EmptiesItsFifosWhenTold) {
  Uart uart;
  receive(uart, "x");
  uart.write(DATA, 'a');
  uart.write(FCR, 7);
  EXPECT_EQ(uart.sent().size(), 0u);
  EXPECT_EQ(uart.read(LSR), 0x60);
}

}  // namespace
}  // namespace troupe::broker
