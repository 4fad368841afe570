#pragma once

// How a guest of a page or two says what it was handed: on the serial port, in ring 0, without
// interrupts.
#include <stdint.h>

namespace guest {

constexpr uint16_t SERIAL = 0x3f8;
constexpr uint16_t LINE_STATUS = SERIAL + 5;
constexpr uint8_t TRANSMITTER_EMPTY = 0x20;
constexpr uint16_t SLEEP_CONTROL = 0x600;
constexpr uint8_t POWER_OFF = 0x34;

inline void outByte(uint16_t port, uint8_t value) {
  asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

inline uint8_t inByte(uint16_t port) {
  uint8_t value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}

// The port has a queue of sixteen bytes, and drops what comes while it is full.
inline void put(uint8_t byte) {
  while (!(inByte(LINE_STATUS) & TRANSMITTER_EMPTY))
    asm volatile("pause");
  outByte(SERIAL, byte);
}

inline void print(const char* text) {
  for (; *text; ++text)
    put(*text);
}

inline void printHex(uint64_t value) {
  int shift = 60;
  while (shift > 0 && !(value >> shift & 15))
    shift -= 4;
  for (; shift >= 0; shift -= 4)
    put("0123456789abcdef"[value >> shift & 15]);
}

inline void printBytes(const uint8_t* bytes, uint32_t length) {
  for (uint32_t i = 0; i < length; ++i) {
    put("0123456789abcdef"[bytes[i] >> 4]);
    put("0123456789abcdef"[bytes[i] & 15]);
  }
}

inline void powerOff() {
  outByte(SLEEP_CONTROL, POWER_OFF);
}

}  // namespace guest
