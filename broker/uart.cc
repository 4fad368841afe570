// Register layout: the 16550's data sheet (National Semiconductor PC16550D).
#include "broker/uart.h"

#include <cstring>

namespace troupe::broker {
namespace {

constexpr uint8_t DATA = 0;              // also the divisor's low byte
constexpr uint8_t INTERRUPT_ENABLE = 1;  // also its high byte
constexpr uint8_t INTERRUPT_ID = 2;      // read
constexpr uint8_t FIFO_CONTROL = 2;      // write
constexpr uint8_t LINE_CONTROL = 3;
constexpr uint8_t MODEM_CONTROL = 4;
constexpr uint8_t LINE_STATUS = 5;
constexpr uint8_t MODEM_STATUS = 6;
constexpr uint8_t SCRATCH = 7;

constexpr uint8_t ENABLE_RECEIVED = 1 << 0;
constexpr uint8_t ENABLE_TRANSMITTER_EMPTY = 1 << 1;
constexpr uint8_t ENABLE_LINE_STATUS = 1 << 2;
constexpr uint8_t ENABLE_ALL = 0x0f;

constexpr uint8_t CAUSE_LINE_STATUS = 0x06;
constexpr uint8_t CAUSE_RECEIVED = 0x04;
constexpr uint8_t CAUSE_TRANSMITTER_EMPTY = 0x02;
constexpr uint8_t FIFOS_ON = 0xc0;

constexpr uint8_t FIFO_ENABLE = 1 << 0;
constexpr uint8_t FIFO_CLEAR_RX = 1 << 1;
constexpr uint8_t FIFO_CLEAR_TX = 1 << 2;

constexpr uint8_t DIVISOR_LATCH = 1 << 7;

constexpr uint8_t CONTROL_DTR = 1 << 0;
constexpr uint8_t CONTROL_RTS = 1 << 1;
constexpr uint8_t CONTROL_OUT1 = 1 << 2;
constexpr uint8_t CONTROL_OUT2 = 1 << 3;
constexpr uint8_t CONTROL_LOOPBACK = 1 << 4;
constexpr uint8_t CONTROL_ALL = 0x1f;

constexpr uint8_t LINE_DATA_READY = 1 << 0;
constexpr uint8_t LINE_OVERRUN = 1 << 1;
constexpr uint8_t LINE_TRANSMITTER_EMPTY = 1 << 5 | 1 << 6;  // holding and shift register

constexpr uint8_t STATUS_CTS = 1 << 4;
constexpr uint8_t STATUS_DSR = 1 << 5;
constexpr uint8_t STATUS_RI = 1 << 6;
constexpr uint8_t STATUS_DCD = 1 << 7;

}  // namespace

bool Uart::Fifo::push(uint8_t byte) {
  if (count == FIFO_SIZE) return false;
  bytes[count++] = byte;
  return true;
}

void Uart::Fifo::drop(size_t n) {
  n = kj::min(n, count);
  memmove(bytes, bytes + n, count - n);
  count -= n;
}

void Uart::reset() {
  Fifo onTheirWay = tx;
  *this = Uart();
  tx = onTheirWay;
}

uint8_t Uart::read(uint8_t offset) {
  switch (offset) {
    case DATA:
      return divisorLatched() ? divisor[0] : readData();
    case INTERRUPT_ENABLE:
      return divisorLatched() ? divisor[1] : interruptEnable;
    case INTERRUPT_ID:
      return readInterruptCause();
    case LINE_CONTROL:
      return lineControl;
    case MODEM_CONTROL:
      return modemControl;
    case LINE_STATUS:
      return readLineStatus();
    case MODEM_STATUS:
      return modemStatus();
    case SCRATCH:
      return scratch;
  }
  return 0xff;
}

void Uart::write(uint8_t offset, uint8_t value) {
  switch (offset) {
    case DATA:
      if (divisorLatched()) {
        divisor[0] = value;
      } else {
        writeData(value);
      }
      break;
    case INTERRUPT_ENABLE:
      if (divisorLatched()) {
        divisor[1] = value;
      } else {
        writeInterruptEnable(value);
      }
      break;
    case FIFO_CONTROL:
      writeFifoControl(value);
      break;
    case LINE_CONTROL:
      lineControl = value;
      break;
    case MODEM_CONTROL:
      modemControl = value & CONTROL_ALL;
      break;
    case SCRATCH:
      scratch = value;
      break;
  }
}

void Uart::dropSent(size_t count) {
  if (tx.count == 0) return;
  tx.drop(count);
  if (tx.count == 0) transmitterEmptied = true;
}

void Uart::receive(kj::ArrayPtr<const uint8_t> bytes) {
  for (auto byte : bytes)
    overrun = !rx.push(byte) || overrun;
}

uint8_t Uart::interruptCause() const {
  if ((interruptEnable & ENABLE_LINE_STATUS) && overrun) return CAUSE_LINE_STATUS;
  if ((interruptEnable & ENABLE_RECEIVED) && rx.count > 0) return CAUSE_RECEIVED;
  if ((interruptEnable & ENABLE_TRANSMITTER_EMPTY) && transmitterEmptied) {
    return CAUSE_TRANSMITTER_EMPTY;
  }
  return NO_INTERRUPT;
}

uint8_t Uart::readInterruptCause() {
  uint8_t cause = interruptCause();
  if (cause == CAUSE_TRANSMITTER_EMPTY) transmitterEmptied = false;
  return cause | (fifosOn ? FIFOS_ON : 0);
}

uint8_t Uart::readData() {
  if (rx.count == 0) return 0;
  uint8_t byte = rx.bytes[0];
  rx.drop(1);
  return byte;
}

uint8_t Uart::readLineStatus() {
  uint8_t status = 0;
  if (rx.count > 0) status |= LINE_DATA_READY;
  if (overrun) status |= LINE_OVERRUN;
  if (tx.count == 0) status |= LINE_TRANSMITTER_EMPTY;
  overrun = false;
  return status;
}

uint8_t Uart::modemStatus() const {
  if (!loopback()) return STATUS_CTS | STATUS_DSR | STATUS_DCD;
  uint8_t status = 0;
  if (modemControl & CONTROL_RTS) status |= STATUS_CTS;
  if (modemControl & CONTROL_DTR) status |= STATUS_DSR;
  if (modemControl & CONTROL_OUT1) status |= STATUS_RI;
  if (modemControl & CONTROL_OUT2) status |= STATUS_DCD;
  return status;
}

void Uart::writeData(uint8_t value) {
  transmitterEmptied = false;
  if (loopback()) {
    receive(kj::arrayPtr(&value, 1));
    transmitterEmptied = true;
  } else {
    // A driver that does not wait for room loses the byte, as on the real thing.
    tx.push(value);
  }
}

void Uart::writeInterruptEnable(uint8_t value) {
  // Asking for the interrupt while there is room gives it at once: drivers start sending that way.
  bool asked = value & ~interruptEnable & ENABLE_TRANSMITTER_EMPTY;
  if (asked && tx.count == 0) transmitterEmptied = true;
  interruptEnable = value & ENABLE_ALL;
}

void Uart::writeFifoControl(uint8_t value) {
  fifosOn = value & FIFO_ENABLE;
  if (value & FIFO_CLEAR_RX) rx.count = 0;
  if (value & FIFO_CLEAR_TX) dropSent(tx.count);
}

bool Uart::divisorLatched() const {
  return lineControl & DIVISOR_LATCH;
}

bool Uart::loopback() const {
  return modemControl & CONTROL_LOOPBACK;
}

}  // namespace troupe::broker
