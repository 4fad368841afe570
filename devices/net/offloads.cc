#include "devices/net/offloads.h"

#include <linux/if_tun.h>

#include "devices/net/frame.h"
#include "tests/fuzz/planted.h"

namespace troupe::net {
namespace {

// Linux 6.2, younger than the headers we build with.
constexpr uint32_t TAP_USO4 = 0x20;
constexpr uint32_t TAP_USO6 = 0x40;

bool isAllowed(uint8_t gsoType, const Offloads& allowed) {
  bool ecn = gsoType & virtio::NET_HDR_GSO_ECN;
  switch (gsoType & ~virtio::NET_HDR_GSO_ECN) {
    case virtio::NET_HDR_GSO_NONE:
      return !ecn;
    case virtio::NET_HDR_GSO_TCPV4:
      return allowed.tso4 && (!ecn || allowed.ecn);
    case virtio::NET_HDR_GSO_TCPV6:
      return allowed.tso6 && (!ecn || allowed.ecn);
    case virtio::NET_HDR_GSO_UDP:
      return allowed.ufo && !ecn;
    case virtio::NET_HDR_GSO_UDP_L4:
      return (allowed.uso4 || allowed.uso6) && !ecn;
    default:
      return false;
  }
}

// All 16-bit numbers, so no sum of three overflows.
bool checksumIsInside(const virtio::NetHeader& header, uint32_t bytes) {
  if (fuzz::isPlanted(fuzz::Bug::CHECKSUM_PLACE)) return true;
  uint32_t end = uint32_t(header.checksumStart) + header.checksumOffset + sizeof(uint16_t);
  return header.checksumStart >= ETHERNET_HEADER_BYTES && end <= bytes;
}

}  // namespace

uint64_t featuresOf(const Offloads& host) {
  uint64_t features = 0;
  auto add = [&](bool can, uint64_t bits) {
    if (can) features |= bits;
  };
  add(host.checksum,
      virtio::NET_F_CSUM | virtio::NET_F_GUEST_CSUM | virtio::NET_F_CTRL_GUEST_OFFLOADS);
  add(host.tso4, virtio::NET_F_HOST_TSO4 | virtio::NET_F_GUEST_TSO4);
  add(host.tso6, virtio::NET_F_HOST_TSO6 | virtio::NET_F_GUEST_TSO6);
  add(host.ecn, virtio::NET_F_HOST_ECN | virtio::NET_F_GUEST_ECN);
  add(host.ufo, virtio::NET_F_HOST_UFO | virtio::NET_F_GUEST_UFO);
  add(host.uso4 && host.uso6, virtio::NET_F_HOST_USO);
  add(host.uso4, virtio::NET_F_GUEST_USO4);
  add(host.uso6, virtio::NET_F_GUEST_USO6);
  return features;
}

Offloads hostOffloads(uint64_t features) {
  Offloads result;
  result.checksum = features & virtio::NET_F_CSUM;
  result.tso4 = features & virtio::NET_F_HOST_TSO4;
  result.tso6 = features & virtio::NET_F_HOST_TSO6;
  result.ecn = features & virtio::NET_F_HOST_ECN;
  result.ufo = features & virtio::NET_F_HOST_UFO;
  result.uso4 = result.uso6 = features & virtio::NET_F_HOST_USO;
  return result;
}

Offloads guestOffloads(uint64_t features) {
  Offloads result;
  result.checksum = features & virtio::NET_F_GUEST_CSUM;
  result.tso4 = features & virtio::NET_F_GUEST_TSO4;
  result.tso6 = features & virtio::NET_F_GUEST_TSO6;
  result.ecn = features & virtio::NET_F_GUEST_ECN;
  result.ufo = features & virtio::NET_F_GUEST_UFO;
  result.uso4 = features & virtio::NET_F_GUEST_USO4;
  result.uso6 = features & virtio::NET_F_GUEST_USO6;
  return result;
}

uint32_t tapFlags(const Offloads& guest) {
  if (!guest.checksum) return 0;  // the kernel takes none of the others without
  uint32_t flags = TUN_F_CSUM;
  if (guest.tso4) flags |= TUN_F_TSO4;
  if (guest.tso6) flags |= TUN_F_TSO6;
  if (guest.ecn && (guest.tso4 || guest.tso6)) flags |= TUN_F_TSO_ECN;
  if (guest.ufo) flags |= TUN_F_UFO;
  // Likewise, these two go together.
  if (guest.uso4 && guest.uso6) flags |= TAP_USO4 | TAP_USO6;
  return flags;
}

bool settle(virtio::NetHeader& header, uint32_t bytes, const Offloads& allowed,
            Direction direction) {
  if (!isAllowed(header.gsoType, allowed)) return false;
  if (header.gsoType == virtio::NET_HDR_GSO_NONE) {
    header.gsoSize = 0;
    header.headerBytes = 0;
  } else if (header.gsoSize == 0 || header.headerBytes > bytes) {
    return false;
  }

  uint8_t flags = header.flags & virtio::NET_HDR_F_NEEDS_CSUM;
  if (flags != 0) {
    if (!allowed.checksum || !checksumIsInside(header, bytes)) return false;
  } else {
    header.checksumStart = 0;
    header.checksumOffset = 0;
    // What it says of checksums is of use only to a guest that asked (§5.1.6.4.1).
    bool told = direction == Direction::TO_GUEST && allowed.checksum;
    if (told) flags = header.flags & virtio::NET_HDR_F_DATA_VALID;
  }
  header.flags = flags;
  return true;
}

}  // namespace troupe::net
