#pragma once

#include <kj/common.h>

#include <cstddef>
#include <cstdint>

namespace troupe::broker {

// The registers of a 16550A with its two FIFOs, and no time: a byte takes none to pass the wire, so
// speed settings are kept and mean nothing. Knows no threads and no files.
class Uart {
 public:
  static constexpr size_t FIFO_SIZE = 16;

  // `offset`: 0 to 7.
  uint8_t read(uint8_t offset);
  void write(uint8_t offset, uint8_t value);

  // As after power-on, but for bytes sent and not passed on yet.
  void reset();

  // Whether the interrupt output is high.
  bool interrupting() const { return interruptCause() != NO_INTERRUPT; }

  // Bytes the guest sent, oldest first. The guest sees the transmitter busy until none are left.
  kj::ArrayPtr<const uint8_t> sent() const { return kj::arrayPtr(tx.bytes, tx.count); }
  void dropSent(size_t count);

  // Bytes for the guest. receive() takes no more than room() of them.
  size_t room() const { return FIFO_SIZE - rx.count; }
  void receive(kj::ArrayPtr<const uint8_t> bytes);

 private:
  static constexpr uint8_t NO_INTERRUPT = 0x01;

  struct Fifo {
    uint8_t bytes[FIFO_SIZE];
    size_t count = 0;
    bool push(uint8_t byte);
    void drop(size_t n);
  };

  uint8_t interruptCause() const;
  uint8_t readInterruptCause();
  uint8_t readData();
  uint8_t readLineStatus();
  uint8_t modemStatus() const;
  void writeData(uint8_t value);
  void writeInterruptEnable(uint8_t value);
  void writeFifoControl(uint8_t value);
  bool divisorLatched() const;
  bool loopback() const;

  Fifo rx;
  Fifo tx;
  bool overrun = false;
  bool transmitterEmptied = false;  // since the guest last looked
  bool fifosOn = false;
  uint8_t interruptEnable = 0;
  uint8_t lineControl = 0;
  uint8_t modemControl = 0;
  uint8_t scratch = 0;
  uint8_t divisor[2] = {1, 0};
};

}  // namespace troupe::broker
