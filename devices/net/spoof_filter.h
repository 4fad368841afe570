#pragma once

#include <kj/array.h>

#include "devices/net/frame.h"

namespace troupe::net {

// How much of a frame's beginning isGenuine() looks at: an Ethernet header and an ARP packet.
constexpr uint32_t SPOOF_FILTER_BYTES = ETHERNET_HEADER_BYTES + 28;

// Whether a frame of a guest whose address is `own` says so: its source, and in ARP and reverse ARP
// the sender's hardware address. A frame with a VLAN tag is not genuine: a guest is on the network
// its host put it on. `start`: the frame's first SPOOF_FILTER_BYTES bytes, or all of a shorter one.
bool isGenuine(kj::ArrayPtr<const kj::byte> start, const MacAddress& own);

// Whether a checksum filled in behind the filter's back could change what it looked at.
bool isArp(kj::ArrayPtr<const kj::byte> start);

}  // namespace troupe::net
