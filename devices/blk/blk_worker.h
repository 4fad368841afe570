#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <atomic>
#include <cstdint>

#include "devices/blk/blk_request.h"
#include "devices/blk/disk.h"
#include "devices/blk/disk_io.h"
#include "devices/blk/format_io.h"
#include "devices/blk/image_disk.h"
#include "devices/virtio/rate_limit.h"
#include "devices/virtio/spin.h"
#include "devices/virtio/virtqueue.h"

namespace troupe::blk {

// What the queues of one disk have in common.
struct BlkSettings {
  const Disk& disk;
  virtio::RateLimit& limit;
  kj::byte id[virtio::BLK_ID_BYTES];  // padded with NUL
  uint32_t spinMicros;
  ImageDisk* image = nullptr;       // what is in `disk`; null: the guest's bytes
  VolatileDisk* overlay = nullptr;  // where writes go; null: to `disk`

  DiskShape shape() const {
    if (overlay != nullptr) return overlay->shape();
    return image == nullptr ? disk.shape() : image->shape();
  }
};

// One queue as its thread gets it, for as long as the driver keeps it enabled. Borrowed.
struct BlkWork {
  virtio::Virtqueue* ring;
  int kick;
  int call;
  // Of each write that begins from now on; the driver changes it at any time (CONFIG_WCE).
  const std::atomic<DiskIo::Durability>* durability;
};

// Serves the requests of one ring, never waiting for any of them. A request that does not end at
// once stays in a table with a place for each head of the ring, so nothing is allocated after
// construction. Belongs to one thread.
class BlkWorker {
 public:
  // `wake`: the eventfd written when requests in the background have ended; see setNotifications().
  BlkWorker(const BlkSettings& settings, int wake);
  KJ_DISALLOW_COPY(BlkWorker);

  void begin(const BlkWork& work);

  // One batch: at most a ring full of new requests, and all that have ended since. The driver is
  // told of what is done in groups, and interrupted when it asked for it.
  void turn();

  // Whether a turn() would find something to do.
  bool hasWork() const { return io.hasWork() || (work.ring->hasWork() && throttledNs() == 0); }

  // How long the driver's requests stay on the ring for its limit's sake.
  uint64_t throttledNs() const {
    return settings.limit.unlimited() ? 0 : settings.limit.waitNs(virtio::monotonicNs());
  }

  // Whether kick and wake are written when there is something new. After switching on, look at
  // hasWork() again.
  void setNotifications(bool on);

  bool ringIsBroken() const { return work.ring->broken(); }

  // The driver lets go of the queue: takes what has ended in the background and tells nobody. True
  // when nothing is left there. Otherwise wait for `wake`, unless hasDiskWork(), and call it again.
  bool abandon();
  bool hasDiskWork() const { return io.hasWork(); }

 private:
  struct Transfer {
    virtio::Chain chain;
    Request request;
    uint32_t moved = 0;       // bytes of the request that are done
    bool allocating = false;  // by the file system, see DiskIo::allocates()
    bool unstable = false;    // something was, and is not synced
    // Of the step under way, when a flight recorder wants to know.
    uint64_t stepOffset = 0;
    bool durable = false;
  };

  void drain();
  void reap();
  void tellDriver();
  void take(virtio::Chain&& chain);
  kj::Maybe<uint8_t> begin(Transfer& transfer);
  kj::Maybe<uint8_t> attempt(Transfer& transfer);
  kj::Maybe<int64_t> step(Transfer& transfer);
  int64_t replay(Transfer& transfer, virtio::QueueFlight& flight);
  void record(const Transfer& transfer, int64_t result);
  DiskIo::Durability durability() const { return work.durability->load(std::memory_order_relaxed); }
  kj::Maybe<uint8_t> account(Transfer& transfer, int64_t result);
  void park(Transfer&& transfer);
  void complete(Transfer&& transfer, uint8_t status);
  void finished(virtio::Chain&& chain, uint32_t written);

  const BlkSettings& settings;
  FormatIo io;
  BlkWork work{};
  kj::Array<kj::Maybe<Transfer>> background;  // by head
  uint32_t inBackground = 0;
  uint32_t untold = 0;  // chains pushed and not yet published
};

}  // namespace troupe::blk
