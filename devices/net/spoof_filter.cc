#include "devices/net/spoof_filter.h"

#include <cstring>

#include "tests/fuzz/planted.h"

namespace troupe::net {
namespace {

constexpr size_t SOURCE_OFFSET = 6;
constexpr size_t TYPE_OFFSET = 12;
constexpr size_t ARP_SENDER_OFFSET = ETHERNET_HEADER_BYTES + 8;  // RFC 826, with 6-byte addresses

constexpr uint16_t TYPE_ARP = 0x0806;
constexpr uint16_t TYPE_REVERSE_ARP = 0x8035;
constexpr uint16_t TYPE_VLAN = 0x8100;          // IEEE 802.1Q
constexpr uint16_t TYPE_SERVICE_VLAN = 0x88a8;  // IEEE 802.1ad
constexpr uint16_t TYPE_OLD_QINQ = 0x9100;

MacAddress addressAt(kj::ArrayPtr<const kj::byte> start, size_t offset) {
  MacAddress address;
  memcpy(address.bytes, start.begin() + offset, sizeof(address.bytes));
  return address;
}

uint16_t typeOf(kj::ArrayPtr<const kj::byte> start) {
  return uint16_t(start[TYPE_OFFSET] << 8 | start[TYPE_OFFSET + 1]);
}

}  // namespace

bool isArp(kj::ArrayPtr<const kj::byte> start) {
  if (start.size() < ETHERNET_HEADER_BYTES) return false;
  uint16_t type = typeOf(start);
  return type == TYPE_ARP || type == TYPE_REVERSE_ARP;
}

bool isGenuine(kj::ArrayPtr<const kj::byte> start, const MacAddress& own) {
  if (fuzz::isPlanted(fuzz::Bug::SPOOFED_SOURCE)) return true;
  if (start.size() < ETHERNET_HEADER_BYTES || addressAt(start, SOURCE_OFFSET) != own) return false;
  uint16_t type = typeOf(start);
  if (type == TYPE_VLAN || type == TYPE_SERVICE_VLAN || type == TYPE_OLD_QINQ) return false;
  if (!isArp(start)) return true;
  return start.size() >= ARP_SENDER_OFFSET + sizeof(MacAddress) &&
         addressAt(start, ARP_SENDER_OFFSET) == own;
}

}  // namespace troupe::net
