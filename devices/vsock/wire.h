#pragma once

#include <cstddef>
#include <cstdint>

// Virtio socket device, §5.10, in the spec's order.
namespace troupe::vsock {

// Virtqueues, §5.10.2. "rx" is what the driver receives.
constexpr uint16_t RECEIVE_QUEUE = 0;
constexpr uint16_t TRANSMIT_QUEUE = 1;
constexpr uint16_t EVENT_QUEUE = 2;
constexpr uint16_t QUEUES = 3;

// Feature bits, §5.10.3.
constexpr uint64_t F_STREAM = 1ull << 0;

struct VsockConfigSpace {  // struct virtio_vsock_config, §5.10.4; little-endian
  uint64_t guestCid;
};
static_assert(sizeof(VsockConfigSpace) == 8, "layout fixed by §5.10.4");

constexpr uint64_t HOST_CID = 2;
constexpr uint64_t FIRST_GUEST_CID = 3;  // 0, 1 and 2 are reserved
constexpr uint64_t LAST_GUEST_CID = 0xfffffffe;
constexpr uint32_t PORT_ANY = 0xffffffff;  // Linux: no port

struct PacketHeader {  // struct virtio_vsock_hdr, §5.10.6; little-endian
  uint64_t sourceCid;
  uint64_t destinationCid;
  uint32_t sourcePort;
  uint32_t destinationPort;
  uint32_t length;  // of the payload behind it
  uint16_t type;
  uint16_t op;
  uint32_t flags;
  uint32_t bufferSize;  // buf_alloc: what the sender sets aside for this stream
  uint32_t forwarded;   // fwd_cnt: how much it has passed on since the stream began
} __attribute__((packed));
static_assert(sizeof(PacketHeader) == 44, "layout fixed by §5.10.6");
static_assert(offsetof(PacketHeader, forwarded) == 40, "layout fixed by §5.10.6");

constexpr uint16_t TYPE_STREAM = 1;

enum Op : uint16_t {
  OP_REQUEST = 1,
  OP_RESPONSE = 2,
  OP_RST = 3,
  OP_SHUTDOWN = 4,
  OP_RW = 5,
  OP_CREDIT_UPDATE = 6,
  OP_CREDIT_REQUEST = 7,
};

// Flags of OP_SHUTDOWN, §5.10.6.5: the sender will receive, or send, no more.
constexpr uint32_t SHUTDOWN_RECEIVE = 1;
constexpr uint32_t SHUTDOWN_SEND = 2;
constexpr uint32_t SHUTDOWN_BOTH = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

struct Event {  // struct virtio_vsock_event, §5.10.6.7
  uint32_t id;
};
constexpr uint32_t EVENT_TRANSPORT_RESET = 0;

}  // namespace troupe::vsock
