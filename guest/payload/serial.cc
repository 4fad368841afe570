#include "guest/payload/serial.h"

#include "guest/payload/machine.h"

namespace payload {
namespace {

constexpr uint16_t PORT = 0x3f8;
constexpr uint16_t LINE_STATUS = PORT + 5;
constexpr uint8_t DATA_READY = 0x01;
constexpr uint8_t TRANSMITTER_EMPTY = 0x20;
constexpr unsigned FIFO_SIZE = 16;

unsigned roomInFifo = 0;

}  // namespace

void initSerial() {
  outByte(PORT + 1, 0);  // no interrupts
  outByte(PORT + 3, 3);  // 8 bits, no parity
  outByte(PORT + 2, 1);  // FIFOs on, what they hold kept
}

void printChar(char c) {
  // Each port access may be an exit to the host: the status is read once per FIFO filling.
  if (roomInFifo == 0) {
    while (!(inByte(LINE_STATUS) & TRANSMITTER_EMPTY)) {
      pause();
    }
    roomInFifo = FIFO_SIZE;
  }
  --roomInFifo;
  outByte(PORT, c);
}

int readSerial() {
  return inByte(LINE_STATUS) & DATA_READY ? inByte(PORT) : -1;
}

void printOne(const char* text) {
  for (; *text; ++text) {
    printChar(*text);
  }
}

void printOne(uint64_t number) {
  char digits[20];
  unsigned count = 0;
  do {
    digits[count++] = '0' + number % 10;
    number /= 10;
  } while (number);
  while (count) {
    printChar(digits[--count]);
  }
}

void printOne(Hex number) {
  printOne("0x");
  int shift = 60;
  while (shift > 0 && !(number.value >> shift & 15)) {
    shift -= 4;
  }
  for (; shift >= 0; shift -= 4) {
    printChar("0123456789abcdef"[number.value >> shift & 15]);
  }
}

void printOne(Padded text) {
  unsigned length = 0;
  for (; text.text[length]; ++length) {
    printChar(text.text[length]);
  }
  for (; length < text.width; ++length) {
    printChar(' ');
  }
}

void printOne(Bytes bytes) {
  const char* data = static_cast<const char*>(bytes.data);
  for (unsigned i = 0; i < bytes.length; ++i) {
    printChar(data[i] >= 0x20 && data[i] < 0x7f ? data[i] : '.');
  }
}

}  // namespace payload
