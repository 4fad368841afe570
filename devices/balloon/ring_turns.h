#pragma once

#include <kj/async-unix.h>
#include <kj/function.h>

#include "devices/balloon/page_batch.h"
#include "devices/virtio/device_engine.h"
#include "devices/virtio/host_inputs.h"

namespace troupe::balloon {

// Serves one queue, turn after turn. A turn takes what the driver made available and pushes what is
// done with; then one call to the broker gives the pages of the turn back and returns the chains,
// and only when that is answered the next turn begins.
class RingTurns {
 public:
  // One turn; true when it left work that needs no notification.
  using Turn = kj::Function<bool(PageBatch& batch)>;
  // How many bytes of a turn's pages the host took.
  using GivenBack = kj::Function<void(uint64_t bytes)>;

  // All that is passed outlives this. `flight`: where turns are recorded, or replayed.
  RingTurns(kj::UnixEventPort& events, virtio::ActiveQueue queue, const virtio::GuestMemory& memory,
            virtio::DriverLink& link, Turn turn, GivenBack givenBack,
            kj::Maybe<virtio::HostInputs&> flight = nullptr);
  KJ_DISALLOW_COPY(RingTurns);

  virtio::Virtqueue& ring() { return *queue.ring; }

  // A turn without a notification of the driver's.
  void wake();

 private:
  kj::Promise<void> serve();
  bool mayBegin();
  kj::Promise<uint64_t> giveBack(kj::ArrayPtr<const virtio::UsedElement> returned);
  kj::Promise<void> sleep();
  kj::Promise<void> nextTurn();

  virtio::ActiveQueue queue;
  virtio::DriverLink& link;
  Turn turn;
  GivenBack givenBack;
  kj::Maybe<virtio::HostInputs&> flight;
  PageBatch batch;
  kj::Timer& timer;
  kj::UnixEventPort::FdObserver kick;
  bool isWoken = false;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> sleeper;
  kj::Promise<void> serving;
};

}  // namespace troupe::balloon
