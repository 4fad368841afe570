// Prints every item of the container it is handed, and turns the machine off.
#include <stdint.h>

#include "guest/freestanding/say.h"

namespace {

using namespace guest;  // NOLINT: a handful of words

struct Header {
  uint32_t type;
  uint32_t length;
  uint32_t extra;
  uint32_t flags;
  uint32_t reserved[2];
  uint32_t magic;
  uint32_t crc32;
};

constexpr uint32_t CONTAINER = 0x544f4f42;
constexpr uint32_t CONTAINER_MAGIC = 0x868cf7e6;
constexpr uint32_t ITEM_MAGIC = 0xb5781729;
constexpr uint32_t VERSION = 0x00010000;
bool isSound(const Header& header) {
  return header.magic == ITEM_MAGIC && (header.flags & VERSION);
}

}  // namespace

// "item TYPE LENGTH BYTES", all in hexadecimal, of each; before them the container's address and
// length.
extern "C" void walk(const uint8_t* data) {
  auto& container = *reinterpret_cast<const Header*>(data);
  bool good =
      container.type == CONTAINER && container.extra == CONTAINER_MAGIC && isSound(container);
  print(good ? "container " : "no container ");
  printHex(reinterpret_cast<uint64_t>(data));
  print(" ");
  printHex(container.length);
  print("\n");
  uint64_t offset = sizeof(Header);
  uint64_t end = offset + container.length;
  while (good && offset + sizeof(Header) <= end) {
    auto& item = *reinterpret_cast<const Header*>(data + offset);
    if (!isSound(item) || item.length > end - offset - sizeof(Header)) {
      print("no item\n");
      break;
    }
    print("item ");
    printHex(item.type);
    print(" ");
    printHex(item.length);
    print(" ");
    printBytes(data + offset + sizeof(Header), item.length);
    print("\n");
    offset += sizeof(Header) + ((uint64_t(item.length) + 7) & ~uint64_t(7));
  }
  print(offset == end ? "end\n" : "no end\n");
  powerOff();
}
