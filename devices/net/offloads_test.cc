#include "devices/net/offloads.h"

#include <gtest/gtest.h>
#include <linux/if_tun.h>

#include "devices/net/frame.h"

namespace troupe::net {
namespace {

Offloads everything() {
  return {true, true, true, true, true, true, true};
}

virtio::NetHeader checksumAt(uint16_t start, uint16_t offset) {
  virtio::NetHeader header{};
  header.flags = virtio::NET_HDR_F_NEEDS_CSUM;
  header.checksumStart = start;
  header.checksumOffset = offset;
  return header;
}

virtio::NetHeader segments(uint8_t type, uint16_t size) {
  auto header = checksumAt(34, 16);
  header.gsoType = type;
  header.gsoSize = size;
  header.headerBytes = 54;
  return header;
}

bool fromGuest(virtio::NetHeader header, uint32_t bytes, const Offloads& allowed = everything()) {
  return settle(header, bytes, allowed, Direction::TO_HOST);
}

TEST(Offloads, APlainFrameMayGoAndCarriesNothingItsReceiverIgnores) {
  virtio::NetHeader header{};
  header.flags = 0xfe;
  header.headerBytes = header.gsoSize = header.checksumStart = 77;
  EXPECT_TRUE(settle(header, 60, {}, Direction::TO_HOST));
  EXPECT_EQ(header.flags, 0);
  EXPECT_EQ(header.headerBytes + header.gsoSize + header.checksumStart, 0);
}

TEST(Offloads, NET01_ChecksumsOutsideOfTheFrameAreRefused) {
  EXPECT_TRUE(fromGuest(checksumAt(34, 16), 52));
  EXPECT_FALSE(fromGuest(checksumAt(34, 16), 51));
  EXPECT_FALSE(fromGuest(checksumAt(34, 17), 52));
  EXPECT_FALSE(fromGuest(checksumAt(0xffff, 0xffff), MAX_FRAME_BYTES));
  EXPECT_FALSE(fromGuest(checksumAt(0xffff, 2), 60));
}

// It would be filled in behind the back of whoever looked at the addresses.
TEST(Offloads, NET01_ChecksumsInTheEthernetHeaderAreRefused) {
  for (uint16_t start = 0; start < ETHERNET_HEADER_BYTES; start++)
    EXPECT_FALSE(fromGuest(checksumAt(start, 20), 1000)) << start;
  EXPECT_TRUE(fromGuest(checksumAt(ETHERNET_HEADER_BYTES, 0), 1000));
}

TEST(Offloads, NET01_SegmentsOfNoSizeAreRefused) {
  EXPECT_TRUE(fromGuest(segments(virtio::NET_HDR_GSO_TCPV4, 1448), 60000));
  EXPECT_FALSE(fromGuest(segments(virtio::NET_HDR_GSO_TCPV4, 0), 60000));
  EXPECT_FALSE(fromGuest(segments(virtio::NET_HDR_GSO_TCPV4, 1448), 53))
      << "headers behind its end";
}

TEST(Offloads, NET01_WhatWasNotNegotiatedIsRefused) {
  EXPECT_FALSE(fromGuest(checksumAt(34, 16), 60, {}));
  struct Case {
    uint8_t type;
    bool Offloads::*needs;
  };
  const Case cases[] = {{virtio::NET_HDR_GSO_TCPV4, &Offloads::tso4},
                        {virtio::NET_HDR_GSO_TCPV6, &Offloads::tso6},
                        {virtio::NET_HDR_GSO_UDP, &Offloads::ufo}};
  for (const Case& item : cases) {
    EXPECT_TRUE(fromGuest(segments(item.type, 1400), 9000)) << int(item.type);
    Offloads less = everything();
    less.*item.needs = false;
    EXPECT_FALSE(fromGuest(segments(item.type, 1400), 9000, less)) << int(item.type);
  }
  Offloads noUso = everything();
  noUso.uso4 = noUso.uso6 = false;
  EXPECT_TRUE(fromGuest(segments(virtio::NET_HDR_GSO_UDP_L4, 1400), 9000));
  EXPECT_FALSE(fromGuest(segments(virtio::NET_HDR_GSO_UDP_L4, 1400), 9000, noUso));
  Offloads noEcn = everything();
  noEcn.ecn = false;
  uint8_t ecn = virtio::NET_HDR_GSO_TCPV4 | virtio::NET_HDR_GSO_ECN;
  EXPECT_TRUE(fromGuest(segments(ecn, 1400), 9000));
  EXPECT_FALSE(fromGuest(segments(ecn, 1400), 9000, noEcn));
}

TEST(Offloads, NET01_UnknownSegmentsAreRefused) {
  for (int type : {2, 6, 7, 0x7f, 0x80, 0x83, 0x85, 0xff})
    EXPECT_FALSE(fromGuest(segments(type, 1400), 9000)) << type;
}

TEST(Offloads, ThatAChecksumIsRightIsToldToAGuestThatAsked) {
  virtio::NetHeader header{};
  header.flags = virtio::NET_HDR_F_DATA_VALID;
  auto copy = header;
  EXPECT_TRUE(settle(copy, 60, everything(), Direction::TO_GUEST));
  EXPECT_EQ(copy.flags, virtio::NET_HDR_F_DATA_VALID);
  copy = header;
  EXPECT_TRUE(settle(copy, 60, {}, Direction::TO_GUEST));
  EXPECT_EQ(copy.flags, 0);  // §5.1.6.4.1
  copy = header;
  EXPECT_TRUE(settle(copy, 60, everything(), Direction::TO_HOST));
  EXPECT_EQ(copy.flags, 0);
}

TEST(Offloads, WhatTheHostCanDoIsOfferedInBothDirections) {
  uint64_t features = featuresOf(everything());
  EXPECT_EQ(tapFlags(guestOffloads(features)),
            TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_UFO | 0x60u);
  EXPECT_TRUE(hostOffloads(features).uso4);
  EXPECT_EQ(featuresOf({}), 0);
}

// The kernel refuses the whole set otherwise.
TEST(Offloads, ATapIsAskedForNothingWithoutWhatItNeeds) {
  Offloads segmentsOnly;
  segmentsOnly.tso4 = true;
  EXPECT_EQ(tapFlags(segmentsOnly), 0);
  Offloads ecnOnly;
  ecnOnly.checksum = ecnOnly.ecn = ecnOnly.uso4 = true;
  EXPECT_EQ(tapFlags(ecnOnly), uint32_t(TUN_F_CSUM));
}

}  // namespace
}  // namespace troupe::net
