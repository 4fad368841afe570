#pragma once

#include <kj/array.h>

#include <cstdint>

#include "devices/net/frame.h"

namespace troupe::net {

// Which frames a driver wants of those that arrive (§5.1.6.5.1, §5.1.6.5.2). A value.
//
// It spares the driver frames that are not for it and keeps no secrets from it: it may ask for all.
class ReceiveFilter {
 public:
  // Everything, until the driver says otherwise.
  explicit ReceiveFilter(const MacAddress& own) : own(own) {}

  // By the destination at the beginning of the frame.
  bool accepts(const MacAddress& destination) const;

  // A command of class RX; false when there is none such.
  bool setMode(uint8_t command, bool on);
  void setOwn(const MacAddress& address) { own = address; }

  // One of the two tables. A driver may have more addresses than this keeps: then the table takes
  // all of its kind, which the spec allows ("best effort").
  static constexpr uint32_t MAX_ADDRESSES = 64;
  struct Table {
    MacAddress addresses[MAX_ADDRESSES] = {};
    uint32_t count = 0;
    bool overflows = false;
  };
  void setTables(const Table& newUnicast, const Table& newMulticast) {
    wishes.unicast = newUnicast;
    wishes.multicast = newMulticast;
  }

  // All that the driver said but its own address, for whoever goes on after this process.
  struct Wishes {
    bool promiscuous = true;
    bool allMulticast = false;
    bool allUnicast = false;
    bool noMulticast = false;
    bool noUnicast = false;
    bool noBroadcast = false;
    Table unicast;
    Table multicast;
  };
  const Wishes& said() const { return wishes; }
  // Tables count what they hold.
  void restore(const Wishes& earlier) { wishes = earlier; }

 private:
  MacAddress own;
  Wishes wishes;
};

}  // namespace troupe::net
