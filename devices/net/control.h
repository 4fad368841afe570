#pragma once

#include <kj/common.h>

#include <cstdint>

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

  NetRules rules;
  MacAddress mac;

 private:
  Command executeReceive(uint8_t command, virtio::Chain& chain);
  Command executeMac(uint8_t command, virtio::Chain& chain);
  Command setOffloads(virtio::Chain& chain);
  Command setPairs(virtio::Chain& chain);

  const Limits limits;
};

}  // namespace troupe::net
