#pragma once

#include <kj/common.h>

#include <cstdint>

#include "devices/balloon/kept_balloon.h"
#include "devices/balloon/page_batch.h"
#include "devices/virtio/virtqueue.h"

// The requests of the queues that name pages. They know no fd and no event loop: a turn takes what
// the driver made available, as far as `batch` has room, and pushes the chains it has read to their
// end; whoever called has the batch given back to the host and then publishes. So a chain comes
// back to the driver once all its pages are gone, and however long it is, a turn is bounded.
namespace troupe::balloon {

// Arrays of page numbers (§5.5.6.1), with which a driver fills the balloon.
class InflateQueue {
 public:
  explicit InflateQueue(virtio::Virtqueue& ring) : ring(ring) {}

  void turn(PageBatch& batch);
  // A chain has been read in part.
  bool isUnfinished() const { return current != nullptr; }

 private:
  bool read(virtio::Chain& chain, PageBatch& batch);

  virtio::Virtqueue& ring;
  kj::Maybe<virtio::Chain> current;
};

// Page numbers that leave the balloon. There is nothing to do but to say so: a page comes to life
// when the guest touches it.
class DeflateQueue {
 public:
  explicit DeflateQueue(virtio::Virtqueue& ring) : ring(ring) {}

  void turn();

 private:
  virtio::Virtqueue& ring;
};

// Buffers that are the free pages themselves (§5.5.6.7, §5.5.6.8).
class FreePageQueue {
 public:
  explicit FreePageQueue(virtio::Virtqueue& ring) : ring(ring) {}
  virtual ~FreePageQueue() noexcept(false) = default;
  KJ_DISALLOW_COPY(FreePageQueue);

  // `taken`: whether the pages are given back. Where they are not, chains are answered all the
  // same.
  void turn(PageBatch& batch, bool taken);
  bool isUnfinished() const { return current != nullptr; }

 protected:
  // A chain has come; false leaves its pages alone.
  virtual bool begin(virtio::Chain&) { return true; }
  // One has come that processes keep dying of: it is answered unread.
  virtual void refuse(virtio::Chain&) {}

 private:
  bool read(virtio::Chain& chain, PageBatch& batch);

  virtio::Virtqueue& ring;
  kj::Maybe<virtio::Chain> current;
  bool currentCounts = false;
};

// The same in rounds, which the device asks for and the driver begins and ends (§5.5.6.7).
class HintQueue final: public FreePageQueue {
 public:
  // `round`: where it was before this, if a process before this one served the driver. Outlives it.
  HintQueue(virtio::Virtqueue& ring, HintRound& round) : FreePageQueue(ring), round(round) {}

  // Pages count from when the driver begins this round.
  void ask(uint32_t wanted) {
    round = {wanted, false};
    ended = false;
  }
  // Whether the driver has ended the round that was asked for; once.
  bool takeEnd();

 protected:
  bool begin(virtio::Chain& chain) override;
  void refuse(virtio::Chain& chain) override;

 private:
  HintRound& round;
  bool ended = false;
};

}  // namespace troupe::balloon
