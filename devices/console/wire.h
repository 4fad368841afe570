#pragma once

#include <cstdint>

namespace troupe::console {

// Virtio console, §5.3.

// Virtqueues, §5.3.2. Those of the control messages and of ports after the first are there with
// MULTIPORT only.
constexpr uint16_t RECEIVE_QUEUE = 0;  // of port 0
constexpr uint16_t TRANSMIT_QUEUE = 1;
constexpr uint16_t CONTROL_RECEIVE_QUEUE = 2;
constexpr uint16_t CONTROL_TRANSMIT_QUEUE = 3;

constexpr uint16_t receiveQueueOf(uint16_t port) {
  return port == 0 ? RECEIVE_QUEUE : 2 * port + 2;
}
constexpr uint16_t transmitQueueOf(uint16_t port) {
  return receiveQueueOf(port) + 1;
}

// Feature bits, §5.3.3.
constexpr uint64_t F_SIZE = 1ull << 0;
constexpr uint64_t F_MULTIPORT = 1ull << 1;
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

// Control messages, §5.3.6.2.
struct ControlMessage {  // struct virtio_console_control; little-endian
  uint32_t port;
  uint16_t event;
  uint16_t value;
};
static_assert(sizeof(ControlMessage) == 8, "layout fixed by §5.3.6.2");

constexpr uint16_t DEVICE_READY = 0;   // driver: 1, it knows how to use the control queues
constexpr uint16_t DEVICE_ADD = 1;     // device: there is such a port
constexpr uint16_t DEVICE_REMOVE = 2;  // device; never sent: ports stay
constexpr uint16_t PORT_READY = 3;     // driver: 1, it will use the port
constexpr uint16_t CONSOLE_PORT = 4;   // device: the port is a console
constexpr uint16_t RESIZE = 5;         // device: followed by a ControlResize
constexpr uint16_t PORT_OPEN = 6;      // either: 1, its side is open
constexpr uint16_t PORT_NAME = 7;      // device: followed by the name, without a NUL

struct ControlResize {  // struct virtio_console_resize; little-endian
  uint16_t columns;
  uint16_t rows;
};
static_assert(sizeof(ControlResize) == 4, "layout fixed by §5.3.6.2");

}  // namespace troupe::console
