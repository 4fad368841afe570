#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

#include "broker/guest_ram.h"
#include "broker/virtio_device.h"
#include "protos/device.capnp.h"

namespace troupe::broker {

// Does in guest RAM what a device asks for that may not write there itself: gives pages back to the
// host and returns chains to the driver (DeviceHost.returnChains in protos/device.capnp). The
// device is as hostile as any: it reaches the used rings its driver set up, and nothing else by a
// store. If it may give pages back, it can turn any page of the guest into zeroes, and no other
// memory.
//
// Nothing is read from guest RAM. Main loop only.
class RamDeputy {
 public:
  // What one call may ask for: 2048 ranges make a message of 32 KiB, and giving 64 MiB back takes
  // some milliseconds, in which the main loop does nothing else.
  static constexpr uint32_t MAX_RANGES = 2048;
  static constexpr uint64_t MAX_BYTES = 64 << 20;

  enum class Right { RETURN_CHAINS, GIVE_BACK_TOO };

  // `ram` outlives this.
  RamDeputy(const GuestRam& ram, Right right) : ram(ram), right(right) {}
  KJ_DISALLOW_COPY(RamDeputy);

  // The rings as the driver set them up, from DRIVER_OK until a reset is done. `activation` numbers
  // it: with that of the rings there are, another process goes on where the one before stopped.
  void activate(uint64_t activation, kj::ArrayPtr<const QueueSettings> queues);
  void deactivate();

  // The process that asked is gone, and whoever takes its place has not been activated.
  void suspend() { isSuspended = true; }

  // The index that stands in the used ring of `queue`; 0 when that is not active.
  uint16_t returned(uint16_t queue) const;

  // Returns how many bytes were given back. Throws, with nothing done, when the device asks for
  // what it may not.
  uint64_t returnChains(uint16_t queue, capnp::List<ReturnedChain>::Reader chains,
                        capnp::List<MemoryRange>::Reader giveBack);

 private:
  struct UsedRing {
    uint16_t queue;
    uint16_t size;
    kj::byte* ring;
    uint16_t next = 0;  // modulo 2^16
  };

  UsedRing& ringOf(uint16_t queue);
  void requireSound(capnp::List<MemoryRange>::Reader ranges) const;

  const GuestRam& ram;
  const Right right;
  kj::Array<UsedRing> rings;
  uint64_t activation = 0;  // whose rings these are
  bool isSuspended = false;
};

}  // namespace troupe::broker
