#pragma once

#include <stdint.h>

// The words of the kernel command line. README.md says what each means.
namespace payload {

enum class End { POWEROFF, VERDICT, RESET, CRASH, HALT, SPIN };
enum class Keys { NONE, SERIAL, CONSOLE };
enum class Bench { NONE, BLK, DURABILITY, NET, BALLOON };
enum class NetOp { SEND, RECEIVE, TRIP };

constexpr unsigned NO_DISK = ~0u;
constexpr unsigned EVERY_DISK = ~1u;

struct BenchOptions {
  Bench kind = Bench::NONE;
  bool interrupts = false;
  bool write = false;
  unsigned disk = 0;
  unsigned depth = 1;
  unsigned queues = 1;
  unsigned count = 20000;
  unsigned warmup = 2000;
  unsigned rounds = 1;
  unsigned size = 4096;
  unsigned seed = 0;
  NetOp op = NetOp::SEND;
  unsigned net = 0;
  unsigned frame = 60;
};

struct Options {
  End end = End::POWEROFF;
  Keys keys = Keys::NONE;
  bool hello = false;
  bool idle = false;
  bool intx = false;
  bool eventIndex = true;
  bool indirect = true;
  bool heapLast = false;
  unsigned scratch = NO_DISK;
  uint64_t window = 0;  // 0: none
  BenchOptions bench;
};

// Words it does not know are left alone (a VMM may add its own), values it does not understand are
// answered by `complaint`, called with the whole word.
Options parseCommandLine(const char* line, void (*complaint)(const char* word, unsigned length));

}  // namespace payload
