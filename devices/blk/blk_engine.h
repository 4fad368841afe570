#pragma once

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/common.h>
#include <kj/function.h>
#include <kj/io.h>
#include <kj/string.h>

#include <atomic>
#include <cstdint>

#include "devices/blk/blk_queue.h"
#include "devices/blk/disk.h"
#include "devices/virtio/device_engine.h"

namespace troupe::blk {

constexpr uint16_t MAX_QUEUES = 16;

struct BlkOptions {
  kj::StringPtr id;  // at most BLK_ID_BYTES
  uint16_t queues = 1;
  uint32_t spinMicros = 50;
  // See TokenBucket; 0 a second is without limit.
  uint64_t bytesPerSecond = 0;
  uint64_t burstBytes = 0;
  uint64_t requestsPerSecond = 0;
  uint64_t burstRequests = 0;
  // What is in the disk; null: the guest's bytes as they are. Must outlive the engine.
  ImageDisk* image = nullptr;
  // What is written to it, if that is not the disk; null: the disk is. Must outlive the engine.
  VolatileDisk* overlay = nullptr;
  // What discards should be aligned to, in sectors; 0: what suits the disk.
  uint32_t discardAlignment = 0;
  // The other end of what the process before this one holds, and its rings: until they have let go
  // of it takeOver() waits. -1: whoever calls that has waited.
  int before = -1;
};

// What an engine asks of the process it is in.
class BlkProcess {
 public:
  // Keeps a new fd where the process wants it.
  virtual kj::AutoCloseFd keep(kj::StringPtr name, uint32_t index, kj::AutoCloseFd fd) = 0;
  // Narrows the calling thread, a queue's, to what it needs from here on. From any thread.
  virtual void confineThread() = 0;
};

// A virtio block device (§5.2) on one disk: a thread per queue, and on the main loop only what
// starts and stops them.
class BlkEngine final: public virtio::DeviceEngine {
 public:
  // `disk` must outlive it, `process` this constructor. Throws (TRP-blk-…).
  BlkEngine(kj::UnixEventPort& port, Disk& disk, const BlkOptions& options, BlkProcess& process);
  ~BlkEngine() noexcept(false);

  virtio::DeviceDescription describe() override;
  void start(const virtio::GuestMemory& memory, uint64_t features,
             kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  kj::Promise<void> stop() override;
  // Waits for the end of the process before. An image is saved first, which takes as long as the
  // disk does. Throws TRP-blk-….
  kj::Promise<void> takeOver() override;
  void writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) override;
  // A disk that has grown, or an image that is to, has its new capacity told to the driver. Throws
  // TRP-blk-….
  kj::Promise<void> hostEvent(HostEvent::Reader event) override;
  void showIn(const virtio::VitalSigns& signs) override;
  // Marks an image clean.
  kj::Promise<void> finish() override;

 private:
  // From start() until every queue is at rest.
  struct Active {
    kj::Array<virtio::ActiveQueue> queues;
    virtio::DriverLink& link;
    kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> stopped;
  };
  struct Queue {
    kj::AutoCloseFd wake;
    kj::Own<BlkQueue> queue;  // above its fd: ends first
  };

  // A resize, until a queue's thread has done it.
  struct Growth {
    uint64_t bytes;
    int error;  // the thread's to set
    kj::Own<kj::PromiseFulfiller<void>> done;
  };

  // Until a queue's thread has looked at what there is.
  struct TakingOver {
    kj::Maybe<kj::Exception> failure;  // the thread's to set
    kj::Own<kj::PromiseFulfiller<void>> done;
  };

  kj::Promise<void> watch();
  kj::Promise<void> untilTheOneBeforeHasEnded();
  void lookAtGrowth();
  kj::Promise<void> lookAtWhatThereIs();
  void lookAtTakingOver();
  void tellCapacity();
  void lookAtQueues();
  void chooseDurability();

  Disk& disk;
  virtio::RateLimit limit;
  const BlkSettings settings;
  const uint32_t discardAlignment;
  const int before;
  bool canFlush = true;   // negotiated
  bool writeback = true;  // the driver's choice (CONFIG_WCE)
  std::atomic<DiskIo::Durability> durability{DiskIo::Durability::VOLATILE};
  kj::AutoCloseFd events;
  kj::Maybe<Active> active;
  kj::Maybe<Growth> growth;
  kj::Maybe<TakingOver> takingOver;
  uint64_t toldCapacity;  // what the broker has, in bytes
  kj::Array<Queue> queues;
  kj::UnixEventPort& port;
  kj::Maybe<kj::UnixEventPort::FdObserver> beforeObserver;
  kj::UnixEventPort::FdObserver observer;
  kj::Promise<void> watching;
};

}  // namespace troupe::blk
