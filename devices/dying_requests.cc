// Makes a device die of certain requests, for tests of what becomes of these: linked into
// devices/dying_devices with --wrap, so that nothing that ships knows of it.
#include "devices/virtio/testing/deadly_bytes.h"
#include "devices/virtio/virtqueue.h"

using troupe::virtio::Chain;
using troupe::virtio::Virtqueue;

// Virtqueue::pop(), as its callers and as itself.
kj::Maybe<Chain> popAndDie(Virtqueue* ring) asm("__wrap__ZN6troupe6virtio9Virtqueue3popEv");
kj::Maybe<Chain> pop(Virtqueue* ring) asm("__real__ZN6troupe6virtio9Virtqueue3popEv");

kj::Maybe<Chain> popAndDie(Virtqueue* ring) {
  auto chain = pop(ring);
  KJ_IF_MAYBE (taken, chain) {
    bool isIt = taken->readableBytes() == troupe::virtio::testing::DEADLY_BYTES ||
                taken->writableBytes() == troupe::virtio::testing::DEADLY_BYTES;
    if (isIt && !taken->isDeadly()) __builtin_trap();
  }
  return chain;
}
