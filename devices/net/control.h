#pragma once

#include <kj/common.h>

#include <cstdint>

#include "devices/net/kept_state.h"
#include "devices/net/pair_rules.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::net {

// What a driver says by the control queue (§5.1.6.5), as far as it needs nobody else: parsed from a
// private copy, checked, and kept. A command that is cut short, too long, unknown or not negotiated
// changes nothing.
class Control {
 public:
  struct Limits {
    uint64_t features;      // negotiated
    uint16_t pairs;         // of the device
    bool mayChangeAddress;  // else the host has fixed it
  };
  Control(const MacAddress& mac, const Limits& limits);

  // What a command was. RULES, ADDRESS and OFFLOADS are kept here by now; the caller has them
  // obeyed. PAIRS and ANNOUNCED are the caller's to do.
  enum class Effect { REFUSED, RULES, ADDRESS, OFFLOADS, ANNOUNCED, PAIRS };
  struct Command {
    Effect effect;
    uint16_t pairs = 0;  // with PAIRS: from 1 to Limits::pairs
  };
  // Takes a command off `chain`, whose place for the answer was reserved before.
  Command execute(virtio::Chain& chain);

  // All of it, for whoever goes on after this process.
  DriverSaid said() const { return {pairs, offloads, mac, rules.filter.said()}; }
  // Takes the place of what the driver has said so far. False, and nothing changed, if it may not
  // have said that.
  bool restore(const DriverSaid& earlier);

  NetRules rules;
  MacAddress mac;
  uint16_t pairs = 1;  // in use; the caller's to set

 private:
  Command executeReceive(uint8_t command, virtio::Chain& chain);
  Command executeMac(uint8_t command, virtio::Chain& chain);
  Command setOffloads(virtio::Chain& chain);
  Command setPairs(virtio::Chain& chain);

  const Limits limits;
  uint64_t offloads;  // `rules.toGuest` in the driver's words
};

}  // namespace troupe::net
