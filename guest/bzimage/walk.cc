// Prints what Linux's boot protocol hands a kernel, and turns the machine off, unless the last word
// of its command line is "stay".
#include <stdint.h>

#include "guest/freestanding/say.h"

namespace {

using namespace guest;  // NOLINT: a handful of words

// struct boot_params, Documentation/x86/zero-page.rst.
constexpr uint32_t RSDP = 0x070;
constexpr uint32_t E820_ENTRIES = 0x1e8;
constexpr uint32_t RAMDISK_IMAGE = 0x218;
constexpr uint32_t RAMDISK_SIZE = 0x21c;
constexpr uint32_t COMMAND_LINE = 0x228;
constexpr uint32_t SETUP_DATA = 0x250;
constexpr uint32_t E820_TABLE = 0x2d0;
constexpr uint32_t E820_ENTRY_SIZE = 20;

constexpr uint32_t STAY = 's' | 't' << 8 | 'a' << 16 | 'y' << 24;

template <typename T>
T read(const uint8_t* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

const uint8_t* at(uint64_t address) {
  return reinterpret_cast<const uint8_t*>(address);
}

void printNumber(uint64_t value) {
  print(" ");
  printHex(value);
}

void printContent(const char* name, const uint8_t* bytes, uint32_t length) {
  print(name);
  print(" ");
  printBytes(bytes, length);
  print("\n");
}

}  // namespace

// A word and its values in hexadecimal on each line, the last of which is "end".
extern "C" void walk(const uint8_t* params) {
  auto* commandLine = at(read<uint32_t>(params + COMMAND_LINE));
  uint32_t length = 0;
  while (commandLine[length] != 0)
    ++length;
  printContent("cmdline", commandLine, length);
  printContent("ramdisk", at(read<uint32_t>(params + RAMDISK_IMAGE)),
               read<uint32_t>(params + RAMDISK_SIZE));
  print("rsdp");
  printNumber(read<uint64_t>(params + RSDP));
  print("\n");
  for (uint32_t i = 0; i < params[E820_ENTRIES]; ++i) {
    auto* entry = params + E820_TABLE + i * E820_ENTRY_SIZE;
    print("e820");
    printNumber(read<uint64_t>(entry));
    printNumber(read<uint64_t>(entry + 8));
    printNumber(read<uint32_t>(entry + 16));
    print("\n");
  }
  for (uint64_t data = read<uint64_t>(params + SETUP_DATA); data != 0;
       data = read<uint64_t>(at(data))) {
    print("setup_data");
    printNumber(read<uint32_t>(at(data) + 8));
    printContent("", at(data) + 16, read<uint32_t>(at(data) + 12));
  }
  print("end\n");
  // Compared as a number, as there is no memcmp() here for a compiler to call.
  bool stays =
      length >= sizeof(STAY) && read<uint32_t>(commandLine + length - sizeof(STAY)) == STAY;
  if (!stays) powerOff();
}
