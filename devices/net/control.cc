#include "devices/net/control.h"

namespace troupe::net {
namespace {

constexpr Control::Command REFUSED{Control::Effect::REFUSED};

// Exactly one T, and nothing behind it.
template <typename T>
bool readOnly(virtio::Chain& chain, T& value) {
  return chain.readableBytes() == sizeof(T) && chain.read(value);
}

// le32 entries, then so many addresses. Those the filter has no room for are skipped; a number that
// is larger than the command is no number.
bool readTable(virtio::Chain& chain, ReceiveFilter::Table& table) {
  uint32_t entries;
  if (!chain.read(entries)) return false;
  uint64_t bytes = uint64_t(entries) * sizeof(MacAddress);
  if (bytes > chain.readableBytes()) return false;
  table.overflows = entries > ReceiveFilter::MAX_ADDRESSES;
  if (table.overflows) {
    chain.advanceReadable(bytes);
    return true;
  }
  for (table.count = 0; table.count < entries; table.count++)
    chain.read(table.addresses[table.count]);
  return true;
}

}  // namespace

Control::Control(const MacAddress& mac, const Limits& limits)
    : rules(mac), mac(mac), limits(limits), offloads(limits.features & GUEST_OFFLOADS) {
  rules.toGuest = guestOffloads(offloads);
}

bool Control::restore(const DriverSaid& earlier) {
  if (earlier.pairs < 1 || earlier.pairs > limits.pairs) return false;
  if ((earlier.offloads & ~(limits.features & GUEST_OFFLOADS)) != 0) return false;
  if (!limits.mayChangeAddress && earlier.mac != mac) return false;
  pairs = earlier.pairs;
  offloads = earlier.offloads;
  rules.toGuest = guestOffloads(offloads);
  mac = earlier.mac;
  rules.filter.setOwn(mac);
  rules.filter.restore(earlier.filter);
  return true;
}

Control::Command Control::execute(virtio::Chain& chain) {
  virtio::NetControlHeader header;
  if (!chain.read(header)) return REFUSED;
  auto has = [&](uint64_t feature) { return (limits.features & feature) != 0; };
  switch (header.commandClass) {
    case virtio::NET_CTRL_RX: {
      bool extra = header.command > virtio::NET_CTRL_RX_ALLMULTI;
      if (!has(extra ? virtio::NET_F_CTRL_RX_EXTRA : virtio::NET_F_CTRL_RX)) return REFUSED;
      return executeReceive(header.command, chain);
    }
    case virtio::NET_CTRL_MAC:
      return executeMac(header.command, chain);
    case virtio::NET_CTRL_ANNOUNCE:
      if (!has(virtio::NET_F_GUEST_ANNOUNCE)) return REFUSED;
      if (header.command != virtio::NET_CTRL_ANNOUNCE_ACK || chain.readableBytes() > 0) {
        return REFUSED;
      }
      return {Effect::ANNOUNCED};
    case virtio::NET_CTRL_MQ:
      if (!has(virtio::NET_F_MQ) || header.command != virtio::NET_CTRL_MQ_VQ_PAIRS_SET) {
        return REFUSED;
      }
      return setPairs(chain);
    case virtio::NET_CTRL_GUEST_OFFLOADS:
      if (!has(virtio::NET_F_CTRL_GUEST_OFFLOADS)) return REFUSED;
      if (header.command != virtio::NET_CTRL_GUEST_OFFLOADS_SET) return REFUSED;
      return setOffloads(chain);
    default:
      return REFUSED;
  }
}

Control::Command Control::executeReceive(uint8_t command, virtio::Chain& chain) {
  uint8_t on;
  if (!readOnly(chain, on) || !rules.filter.setMode(command, on != 0)) return REFUSED;
  return {Effect::RULES};
}

Control::Command Control::executeMac(uint8_t command, virtio::Chain& chain) {
  if (command == virtio::NET_CTRL_MAC_TABLE_SET) {
    if (!(limits.features & virtio::NET_F_CTRL_RX)) return REFUSED;
    ReceiveFilter::Table unicast, multicast;
    bool complete = readTable(chain, unicast) && readTable(chain, multicast);
    if (!complete || chain.readableBytes() > 0) return REFUSED;
    rules.filter.setTables(unicast, multicast);
    return {Effect::RULES};
  }
  if (command != virtio::NET_CTRL_MAC_ADDR_SET) return REFUSED;
  if (!(limits.features & virtio::NET_F_CTRL_MAC_ADDR)) return REFUSED;
  MacAddress address;
  if (!readOnly(chain, address) || address.isGroup() || address.isZero()) return REFUSED;
  if (!limits.mayChangeAddress && address != mac) return REFUSED;
  mac = address;
  rules.filter.setOwn(address);
  return {Effect::ADDRESS};
}

Control::Command Control::setOffloads(virtio::Chain& chain) {
  uint64_t wanted;
  if (!readOnly(chain, wanted)) return REFUSED;
  if ((wanted & ~(limits.features & GUEST_OFFLOADS)) != 0) return REFUSED;
  offloads = wanted;
  rules.toGuest = guestOffloads(wanted);
  return {Effect::OFFLOADS};
}

Control::Command Control::setPairs(virtio::Chain& chain) {
  uint16_t pairs;
  if (!readOnly(chain, pairs) || pairs < 1 || pairs > limits.pairs) return REFUSED;
  return {Effect::PAIRS, pairs};
}

}  // namespace troupe::net
