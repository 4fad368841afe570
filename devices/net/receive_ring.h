#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/debug.h>

#include "devices/net/backend.h"
#include "devices/net/driver_notice.h"
#include "devices/net/pair_rules.h"
#include "devices/virtio/spin.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::net {

// Fills the buffers of one receive queue with frames (§5.1.6.4), never waiting for one.
//
// Ordinary frames are received into private memory and copied, which costs less than a list of
// pieces costs the kernel. After a longer one it is given the driver's buffers themselves, and
// behind them private memory, since nobody knows how long the next one is. While the driver has no
// buffer nothing is read, and the host's own queue fills. Belongs to one thread.
class ReceiveRing {
 public:
  // All borrowed. `call`: the queue's. `mergeable`: a frame may span buffers (MRG_RXBUF).
  ReceiveRing(virtio::Virtqueue& ring, int call, Backend& backend, const NetSettings& settings,
              bool mergeable);
  KJ_DISALLOW_COPY(ReceiveRing);

  enum class State {
    MORE,        // there may be another frame
    NO_INPUT,    // wait for the host
    NO_BUFFERS,  // wait for the driver
    THROTTLED,   // wait for throttledNs()
    BROKEN,      // the driver broke the rules; only a reset heals it
    GONE         // the host's end is closed
  };
  // Takes a bounded number of frames. Not after BROKEN or GONE. `version`: of the rules.
  State turn(const NetRules& rules, uint32_t version = 0);

  // How long after NO_BUFFERS a turn() is due even if the driver adds none; 0: as long as it takes.
  uint64_t patienceNs() const;

  // Frames taken so far, dropped ones among them, modulo 2^32.
  uint32_t taken() const { return frameCount; }
  bool driverHasBuffers() const { return ring.hasWork(); }

  uint64_t throttledNs() const {
    return settings.receiveLimit.unlimited() ? 0
                                             : settings.receiveLimit.waitNs(virtio::monotonicNs());
  }

 private:
  State takeOne(const NetRules& rules, uint32_t version);
  kj::Maybe<State> receive(const NetRules& rules, uint32_t version);
  bool isReplayed() { return backend.inputs() != nullptr && backend.inputs()->isReplaying(); }
  bool isWanted(const NetRules& rules, uint32_t bytes);
  State deliver();
  bool mayWait();
  bool waitsAgain();
  void gather(uint64_t bytes);
  size_t listRoom();
  void copyTo(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes);
  uint16_t buffersFor(uint64_t bytes) const;
  State withoutBuffers() const {
    return ring.broken() || tooSmall ? State::BROKEN : State::NO_BUFFERS;
  }
  void giveBack(uint64_t bytes, uint16_t buffers);
  template <typename Visit>
  void forRoom(size_t chainCount, uint64_t skipped, Visit&& visit);
  // Where the i-th chain that is held lies: a ring's size is a power of two.
  size_t place(size_t i) const { return (firstChain + i) & (chains.size() - 1); }
  virtio::Chain& held(size_t i) { return KJ_ASSERT_NONNULL(chains[place(i)]); }
  const virtio::Chain& held(size_t i) const { return KJ_ASSERT_NONNULL(chains[place(i)]); }

  virtio::Virtqueue& ring;
  DriverNotice notice;
  Backend& backend;
  const NetSettings& settings;
  const bool mergeable;

  // The driver's buffers that are held here, in its order.
  kj::Array<kj::Maybe<virtio::Chain>> chains;
  size_t firstChain = 0;
  size_t chainCount = 0;
  uint64_t roomBytes = 0;  // of all of them
  bool tooSmall = false;   // one has no room for a header (§5.1.6.3.1)

  // The frame that was received last: its header and its beginning, and behind them what was not
  // received into `listedBytes` of the buffers' room. With a capture, all of it.
  kj::Array<kj::byte> frame;
  iovec pieces[1024];       // IOV_MAX
  uint32_t frameBytes = 0;  // 0: it has been delivered
  uint64_t listedBytes = 0;
  uint64_t waitingSince = 0;       // for room; 0: it does not
  uint32_t largeFramesToCome = 0;  // for which buffers are listed
  uint32_t frameCount = 0;
  uint32_t popsLeft = 0;  // in this turn
};

}  // namespace troupe::net
