#pragma once

#include <stdint.h>

// Single instructions of the machine, as ring 3 with IOPL 3 may use them.
namespace payload {

inline void outByte(uint16_t port, uint8_t value) {
  asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
inline void outShort(uint16_t port, uint16_t value) {
  asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
inline void outLong(uint16_t port, uint32_t value) {
  asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}
inline uint8_t inByte(uint16_t port) {
  uint8_t value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline uint16_t inShort(uint16_t port) {
  uint16_t value;
  asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline uint32_t inLong(uint16_t port) {
  uint32_t value;
  asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}

// Device registers. One plain mov each: hypervisors emulate few other forms.
template <typename T>
T readRegister(uint64_t address) {
  T value;
  asm volatile("mov %1, %0" : "=r"(value) : "m"(*reinterpret_cast<T*>(address)) : "memory");
  return value;
}
template <typename T>
void writeRegister(uint64_t address, T value) {
  asm volatile("mov %1, %0" : "=m"(*reinterpret_cast<T*>(address)) : "r"(value) : "memory");
}

inline uint64_t readTsc() {
  uint32_t low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return static_cast<uint64_t>(high) << 32 | low;
}

struct Cpuid {
  uint32_t eax, ebx, ecx, edx;
};
inline Cpuid cpuid(uint32_t leaf) {
  Cpuid result;
  asm volatile("cpuid"
               : "=a"(result.eax), "=b"(result.ebx), "=c"(result.ecx), "=d"(result.edx)
               : "a"(leaf), "c"(0));
  return result;
}

inline void pause() {
  asm volatile("pause" : : : "memory");
}

// Unaligned reads of little-endian tables.
template <typename T>
T load(const void* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof(T));
  return value;
}

}  // namespace payload
