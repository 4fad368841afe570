#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include "devices/net/backend.h"
#include "devices/net/driver_notice.h"
#include "devices/net/pair_rules.h"
#include "devices/virtio/spin.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::net {

// Sends the frames of one transmit queue (§5.1.6.2), never waiting for the host. The kernel takes
// each out of guest memory; what was checked of it leaves from a private copy of its beginning.
//
// A frame that breaks a rule is dropped: the driver gets its buffer back, as it does of any frame.
// A frame the host has no room for stays here, and those behind it in the ring. Belongs to one
// thread.
class TransmitRing {
 public:
  // All borrowed. `call`: the queue's. `allowed`: what the driver may leave for the host to do.
  TransmitRing(virtio::Virtqueue& ring, int call, Backend& backend, const NetSettings& settings,
               const Offloads& allowed);
  KJ_DISALLOW_COPY(TransmitRing);

  // Sends a ring full of frames at most. LATER: the host has no room for the next. Not after GONE.
  Backend::Outcome turn();

  // Takes as many and drops them.
  void drop();

  // Whether a turn() would find something to do.
  bool hasWork() const { return first < count || (ring.hasWork() && throttledNs() == 0); }

  // How long the driver's frames stay in the ring for its limit's sake.
  uint64_t throttledNs() const {
    return settings.transmitLimit.unlimited()
               ? 0
               : settings.transmitLimit.waitNs(virtio::monotonicNs());
  }

 private:
  uint32_t fill(uint32_t most);
  uint32_t take(uint32_t most);
  bool prepare(virtio::Chain& chain, OutgoingFrame& frame);
  bool isCopiedWhole(kj::ArrayPtr<const iovec> rest) const;
  void copyWhole(virtio::Chain& chain, OutgoingFrame& frame);
  void finish(size_t sent);
  void giveBack(virtio::Chain&& chain);
  bool wasDropped(const virtio::Chain& chain) const;
  void record(const virtio::Chain& chain, const OutgoingFrame& frame);
  void recordDrop(const virtio::Chain& chain);

  virtio::Virtqueue& ring;
  DriverNotice notice;
  Backend& backend;
  const NetSettings& settings;
  const Offloads allowed;

  // Frames that were taken and checked: those from `first` to `count` wait to be sent.
  kj::Array<OutgoingFrame> frames;
  kj::Array<kj::Maybe<virtio::Chain>> chains;
  size_t first = 0;
  size_t count = 0;

  // The last of them, if it was copied whole: for a capture shows what was sent and nothing else.
  kj::Array<kj::byte> whole;
  iovec wholeRest{};
};

}  // namespace troupe::net
