#pragma once

#include <stdint.h>

// Text on the first serial port (a 16550 at 0x3f8).
namespace payload {

// Turns the FIFO on, interrupts off.
void initSerial();

void printChar(char c);
// The next character received; -1 when there is none.
int readSerial();

struct Hex {
  uint64_t value;
};
// Text padded with blanks to `width`.
struct Padded {
  const char* text;
  unsigned width;
};
// `length` bytes, those that cannot be printed as '.'.
struct Bytes {
  const void* data;
  unsigned length;
};

void printOne(const char* text);
void printOne(uint64_t number);
inline void printOne(uint32_t number) {
  printOne(static_cast<uint64_t>(number));
}
inline void printOne(int number) {
  printOne(static_cast<uint64_t>(number));
}
void printOne(Hex number);
void printOne(Padded text);
void printOne(Bytes bytes);

template <typename... Parts>
void print(const Parts&... parts) {
  (printOne(parts), ...);
}

}  // namespace payload
