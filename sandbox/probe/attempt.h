#pragma once

#include <cstdint>

namespace troupe::sandbox::probe {

// In a call's number: by the convention of i386 programs.
constexpr int64_t I386_CALL = int64_t{1} << 62;
// By that of x32 programs, as the kernel writes it.
constexpr int64_t X32_CALL = 0x40000000;

// A system call as the processor sees it.
struct RawCall {
  int64_t number;
  uint64_t arguments[6];
  bool deadly = false;  // as far as the test knows
};

inline int64_t performI386(const RawCall& call) {
  int64_t result;
  __asm__ volatile("int $0x80"
                   : "=a"(result)
                   : "a"(call.number & 0xffffffff), "b"(call.arguments[0]), "c"(call.arguments[1]),
                     "d"(call.arguments[2]), "S"(call.arguments[3]), "D"(call.arguments[4])
                   : "r8", "r9", "r10", "r11", "memory");
  return int32_t(result);
}

// The kernel's answer, negative errno included.
__attribute__((always_inline)) inline int64_t perform(const RawCall& call) {
  if (call.number & I386_CALL) return performI386(call);
  register uint64_t r10 __asm__("r10") = call.arguments[3];
  register uint64_t r8 __asm__("r8") = call.arguments[4];
  register uint64_t r9 __asm__("r9") = call.arguments[5];
  int64_t result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(call.number), "D"(call.arguments[0]), "S"(call.arguments[1]),
                     "d"(call.arguments[2]), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

// How an attempt ended.
enum class Outcome : uint32_t {
  RETURNED,  // `value` is the kernel's answer
  KILLED,    // by SIGSYS
  DIED,      // in another way: of the signal `value`, or (negative) with the exit status ~value
  HUNG,      // it was let through and waits for something
  UNREADY,   // the process did not get as far as the attempt
};

// What the probe writes to fd 3 for each attempt. Calls come first, scenarios after them.
struct Report {
  uint32_t index;
  Outcome outcome;
  int64_t value;
};

// What it writes before, once its stage is entered: where the parts of its address space lie.
struct Greeting {
  uint64_t text;
  uint64_t heap;
  uint64_t stack;
  uint64_t mapping;
};

// The exit status of a probe that can no longer write to fd 3.
constexpr int MUTE = 113;
// Of one that lost the thread which makes the calls.
constexpr int ONLY_THE_THREAD = 114;

}  // namespace troupe::sandbox::probe
