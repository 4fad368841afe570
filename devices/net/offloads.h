#pragma once

#include <cstdint>

#include "devices/net/net_wire.h"

namespace troupe::net {

// What one side takes from the other in place of complete frames: ones that lack a checksum, and
// segments of up to 64 KiB to be cut up later.
struct Offloads {
  bool checksum = false;
  bool tso4 = false;
  bool tso6 = false;
  bool ecn = false;
  bool ufo = false;
  bool uso4 = false;
  bool uso6 = false;
};

// What the host can do, as features offered to the driver, for both directions.
uint64_t featuresOf(const Offloads& host);

// What a driver with these features may send (HOST_…), and what it takes (GUEST_…).
Offloads hostOffloads(uint64_t features);
Offloads guestOffloads(uint64_t features);

// The GUEST_… bits there are (§5.1.6.5.6).
constexpr uint64_t GUEST_OFFLOADS = virtio::NET_F_GUEST_CSUM | virtio::NET_F_GUEST_TSO4 |
                                    virtio::NET_F_GUEST_TSO6 | virtio::NET_F_GUEST_ECN |
                                    virtio::NET_F_GUEST_UFO | virtio::NET_F_GUEST_USO4 |
                                    virtio::NET_F_GUEST_USO6;

// The TUN_F_… flags by which a tap sends the guest such frames.
uint32_t tapFlags(const Offloads& guest);

enum class Direction { TO_GUEST, TO_HOST };

// Whether a frame of `bytes` bytes may have this header where `allowed` is. Clears what its
// receiver is to ignore. A checksum that would be stored outside of the frame or into its Ethernet
// header is refused, as is a segment size of 0.
bool settle(virtio::NetHeader& header, uint32_t bytes, const Offloads& allowed,
            Direction direction);

}  // namespace troupe::net
