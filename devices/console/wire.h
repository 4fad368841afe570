#pragma once

#include <cstdint>

namespace troupe::console {

// Virtio console, §5.3.

// Virtqueues without MULTIPORT, §5.3.2.
constexpr uint16_t RECEIVE_QUEUE = 0;
constexpr uint16_t TRANSMIT_QUEUE = 1;

// Feature bits, §5.3.3.
constexpr uint64_t F_SIZE = 1ull << 0;
constexpr uint64_t F_EMERG_WRITE = 1ull << 2;

struct ConsoleConfigSpace {  // struct virtio_console_config, §5.3.4; little-endian
  uint16_t columns;
  uint16_t rows;
  uint32_t maxPortCount;  // MULTIPORT only
  uint32_t emergencyWrite;
};
static_assert(sizeof(ConsoleConfigSpace) == 12, "layout fixed by §5.3.4");

constexpr uint32_t SIZE_OFFSET = 0;  // of columns and rows
constexpr uint32_t SIZE_LENGTH = 4;
constexpr uint32_t EMERGENCY_WRITE_OFFSET = 8;

}  // namespace troupe::console
