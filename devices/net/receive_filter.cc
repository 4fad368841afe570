#include "devices/net/receive_filter.h"

namespace troupe::net {
namespace {

bool holds(const ReceiveFilter::Table& table, const MacAddress& address) {
  if (table.overflows) return true;
  for (uint32_t i = 0; i < table.count; i++)
    if (table.addresses[i] == address) return true;
  return false;
}

}  // namespace

bool ReceiveFilter::accepts(const MacAddress& destination) const {
  if (promiscuous) return true;
  if (destination.isBroadcast()) return !noBroadcast;
  if (destination.isGroup()) {
    if (noMulticast) return false;
    return allMulticast || holds(multicast, destination);
  }
  if (noUnicast) return false;
  return allUnicast || destination == own || holds(unicast, destination);
}

bool ReceiveFilter::setMode(uint8_t command, bool on) {
  switch (command) {
    case virtio::NET_CTRL_RX_PROMISC:
      promiscuous = on;
      return true;
    case virtio::NET_CTRL_RX_ALLMULTI:
      allMulticast = on;
      return true;
    case virtio::NET_CTRL_RX_ALLUNI:
      allUnicast = on;
      return true;
    case virtio::NET_CTRL_RX_NOMULTI:
      noMulticast = on;
      return true;
    case virtio::NET_CTRL_RX_NOUNI:
      noUnicast = on;
      return true;
    case virtio::NET_CTRL_RX_NOBCAST:
      noBroadcast = on;
      return true;
    default:
      return false;
  }
}

}  // namespace troupe::net
