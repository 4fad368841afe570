#pragma once

#include <cstddef>
#include <cstdint>

// Wire types of virtio-net (§5.1), in the spec's order and under its names.
namespace troupe::virtio {

// Feature bits, §5.1.3.
constexpr uint64_t NET_F_CSUM = 1ull << 0;
constexpr uint64_t NET_F_GUEST_CSUM = 1ull << 1;
constexpr uint64_t NET_F_CTRL_GUEST_OFFLOADS = 1ull << 2;
constexpr uint64_t NET_F_MTU = 1ull << 3;
constexpr uint64_t NET_F_MAC = 1ull << 5;
constexpr uint64_t NET_F_GUEST_TSO4 = 1ull << 7;
constexpr uint64_t NET_F_GUEST_TSO6 = 1ull << 8;
constexpr uint64_t NET_F_GUEST_ECN = 1ull << 9;
constexpr uint64_t NET_F_GUEST_UFO = 1ull << 10;
constexpr uint64_t NET_F_HOST_TSO4 = 1ull << 11;
constexpr uint64_t NET_F_HOST_TSO6 = 1ull << 12;
constexpr uint64_t NET_F_HOST_ECN = 1ull << 13;
constexpr uint64_t NET_F_HOST_UFO = 1ull << 14;
constexpr uint64_t NET_F_MRG_RXBUF = 1ull << 15;
constexpr uint64_t NET_F_STATUS = 1ull << 16;
constexpr uint64_t NET_F_CTRL_VQ = 1ull << 17;
constexpr uint64_t NET_F_CTRL_RX = 1ull << 18;
constexpr uint64_t NET_F_CTRL_RX_EXTRA = 1ull << 20;
constexpr uint64_t NET_F_GUEST_ANNOUNCE = 1ull << 21;
constexpr uint64_t NET_F_MQ = 1ull << 22;
constexpr uint64_t NET_F_CTRL_MAC_ADDR = 1ull << 23;
constexpr uint64_t NET_F_GUEST_USO4 = 1ull << 54;
constexpr uint64_t NET_F_GUEST_USO6 = 1ull << 55;
constexpr uint64_t NET_F_HOST_USO = 1ull << 56;

constexpr size_t MAC_BYTES = 6;

constexpr uint16_t NET_S_LINK_UP = 1;  // §5.1.4
constexpr uint16_t NET_S_ANNOUNCE = 2;

struct NetConfigSpace {  // struct virtio_net_config up to `mtu`, §5.1.4; little-endian
  uint8_t mac[MAC_BYTES];
  uint16_t status;
  uint16_t maxVirtqueuePairs;
  uint16_t mtu;
};
static_assert(sizeof(NetConfigSpace) == 12, "layout fixed by §5.1.4");
static_assert(offsetof(NetConfigSpace, status) == 6, "layout fixed by §5.1.4");

constexpr uint8_t NET_HDR_F_NEEDS_CSUM = 1;  // §5.1.6
constexpr uint8_t NET_HDR_F_DATA_VALID = 2;
constexpr uint8_t NET_HDR_GSO_NONE = 0;
constexpr uint8_t NET_HDR_GSO_TCPV4 = 1;
constexpr uint8_t NET_HDR_GSO_UDP = 3;
constexpr uint8_t NET_HDR_GSO_TCPV6 = 4;
constexpr uint8_t NET_HDR_GSO_UDP_L4 = 5;
constexpr uint8_t NET_HDR_GSO_ECN = 0x80;

struct NetHeader {  // struct virtio_net_hdr, §5.1.6, without hash_value and what follows it
  uint8_t flags;
  uint8_t gsoType;
  uint16_t headerBytes;  // hdr_len
  uint16_t gsoSize;
  uint16_t checksumStart;
  uint16_t checksumOffset;
  uint16_t bufferCount;  // num_buffers
};
static_assert(sizeof(NetHeader) == 12, "layout fixed by §5.1.6");

// The control queue, §5.1.6.5.
struct NetControlHeader {
  uint8_t commandClass;
  uint8_t command;
};
static_assert(sizeof(NetControlHeader) == 2, "layout fixed by §5.1.6.5");

constexpr uint8_t NET_OK = 0;
constexpr uint8_t NET_ERR = 1;

constexpr uint8_t NET_CTRL_RX = 0;  // §5.1.6.5.1
constexpr uint8_t NET_CTRL_RX_PROMISC = 0;
constexpr uint8_t NET_CTRL_RX_ALLMULTI = 1;
constexpr uint8_t NET_CTRL_RX_ALLUNI = 2;
constexpr uint8_t NET_CTRL_RX_NOMULTI = 3;
constexpr uint8_t NET_CTRL_RX_NOUNI = 4;
constexpr uint8_t NET_CTRL_RX_NOBCAST = 5;

constexpr uint8_t NET_CTRL_MAC = 1;  // §5.1.6.5.2
constexpr uint8_t NET_CTRL_MAC_TABLE_SET = 0;
constexpr uint8_t NET_CTRL_MAC_ADDR_SET = 1;

constexpr uint8_t NET_CTRL_ANNOUNCE = 3;  // §5.1.6.5.4
constexpr uint8_t NET_CTRL_ANNOUNCE_ACK = 0;

constexpr uint8_t NET_CTRL_MQ = 4;  // §5.1.6.5.5
constexpr uint8_t NET_CTRL_MQ_VQ_PAIRS_SET = 0;

constexpr uint8_t NET_CTRL_GUEST_OFFLOADS = 5;  // §5.1.6.5.6
constexpr uint8_t NET_CTRL_GUEST_OFFLOADS_SET = 0;

}  // namespace troupe::virtio
