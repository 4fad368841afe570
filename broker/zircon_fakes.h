#pragma once

#include <cstring>

#include "broker/boot_fakes.h"

// Zircon boot images for tests, written down from the format and not from the loader.
namespace troupe::broker::testing {

constexpr size_t ITEM_SIZE = 32;  // of a header
constexpr size_t ZIRCON_TYPE = 0;
constexpr size_t ZIRCON_LENGTH = 4;
constexpr size_t ZIRCON_EXTRA = 8;
constexpr size_t ZIRCON_MAGIC = 24;

constexpr uint32_t ZIRCON_ITEM_MAGIC = 0xb5781729;
constexpr uint32_t ZIRCON_CONTAINER = 0x544f4f42;     // "BOOT"
constexpr uint32_t ZIRCON_KERNEL = 0x4c4e524b;        // "KRNL"
constexpr uint32_t ZIRCON_COMMAND_LINE = 0x4c444d43;  // "CMDL"

// One item, its payload filled up to a multiple of 8.
inline Bytes zirconItem(uint32_t type, Bytes payload, uint32_t extra = 0) {
  uint32_t header[8] = {type, uint32_t(payload.size()), extra,     0x00010000, 0,
                        0,    ZIRCON_ITEM_MAGIC,        0x4a87e8d6};
  payload.resize((payload.size() + 7) & ~size_t(7));
  return bytesOf(header) + payload;
}

inline Bytes zirconContainer(const Bytes& items) {
  return zirconItem(ZIRCON_CONTAINER, items, 0x868cf7e6);
}

// A kernel item that is entered at the start of `code`, and items behind it.
inline Bytes zirconKernel(const Bytes& code, const Bytes& items) {
  constexpr uint64_t LOADED_AT = 0x100000;
  uint64_t payload[2] = {LOADED_AT + 2 * ITEM_SIZE + sizeof(payload), /*reserve=*/0x10000};
  return zirconContainer(zirconItem(ZIRCON_KERNEL, bytesOf(payload) + code) + items);
}

}  // namespace troupe::broker::testing
