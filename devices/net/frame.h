#pragma once

#include <kj/common.h>

#include <cstdint>

#include "devices/net/net_wire.h"

// What this device knows of Ethernet. Frames begin with the destination address and end without a
// checksum of the wire.
namespace troupe::net {

constexpr uint32_t ETHERNET_HEADER_BYTES = 14;

// A packet of 65535 bytes behind an Ethernet header with two VLAN tags. Longer frames are dropped.
constexpr uint32_t MAX_FRAME_BYTES = 65535 + ETHERNET_HEADER_BYTES + 8;

struct MacAddress {
  kj::byte bytes[virtio::MAC_BYTES];

  bool isGroup() const { return bytes[0] & 1; }  // multicast or broadcast
  bool isBroadcast() const { return *this == MacAddress{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}; }
  bool isZero() const { return *this == MacAddress{}; }
  bool operator==(const MacAddress& other) const {
    for (size_t i = 0; i < sizeof(bytes); i++)
      if (bytes[i] != other.bytes[i]) return false;
    return true;
  }
  bool operator!=(const MacAddress& other) const { return !(*this == other); }
};
static_assert(sizeof(MacAddress) == 6, "as on the wire");

}  // namespace troupe::net
