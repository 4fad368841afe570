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
  if (wishes.promiscuous) return true;
  if (destination.isBroadcast()) return !wishes.noBroadcast;
  if (destination.isGroup()) {
    if (wishes.noMulticast) return false;
    return wishes.allMulticast || holds(wishes.multicast, destination);
  }
  if (wishes.noUnicast) return false;
  return wishes.allUnicast || destination == own || holds(wishes.unicast, destination);
}

bool ReceiveFilter::setMode(uint8_t command, bool on) {
  switch (command) {
    case virtio::NET_CTRL_RX_PROMISC:
      wishes.promiscuous = on;
      return true;
    case virtio::NET_CTRL_RX_ALLMULTI:
      wishes.allMulticast = on;
      return true;
    case virtio::NET_CTRL_RX_ALLUNI:
      wishes.allUnicast = on;
      return true;
    case virtio::NET_CTRL_RX_NOMULTI:
      wishes.noMulticast = on;
      return true;
    case virtio::NET_CTRL_RX_NOUNI:
      wishes.noUnicast = on;
      return true;
    case virtio::NET_CTRL_RX_NOBCAST:
      wishes.noBroadcast = on;
      return true;
    default:
      return false;
  }
}

}  // namespace troupe::net
