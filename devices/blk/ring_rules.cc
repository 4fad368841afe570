#include "devices/blk/ring_rules.h"

#include "devices/blk/blk_profile.h"

namespace troupe::blk {

RingRules builtInRingRules() {
  const auto& layers = BLK_PROFILE.layers;
  return {kj::arrayPtr(layers.ioUringOpcodes, layers.ioUringOpcodeCount), layers.ioUringSqeFlags,
          -1};
}

}  // namespace troupe::blk
