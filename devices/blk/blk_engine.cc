#include "devices/blk/blk_engine.h"

#include <errno.h>
#include <kj/debug.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "devices/virtio/wire.h"

namespace troupe::blk {
namespace {

// A reset waits for what the kernel has under way, a sync to a slow disk included.
constexpr uint32_t RESET_DEADLINE_MS = 5000;

kj::AutoCloseFd makeEventFd() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return kj::AutoCloseFd(fd);
}

// Its text crosses two processes and begins with its code.
kj::Exception failure(kj::String text) {
  return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__, kj::mv(text));
}

[[noreturn]] void refuse(kj::String text) {
  kj::throwFatalException(failure(kj::mv(text)));
}

virtio::RateLimit limitOf(const BlkOptions& options) {
  using virtio::TokenBucket;
  KJ_REQUIRE(TokenBucket::accepts(options.bytesPerSecond, options.burstBytes) &&
                 TokenBucket::accepts(options.requestsPerSecond, options.burstRequests),
             "TRP-blk-009: a rate is at most 1 TiB or 2^40 requests in a second, its burst from 1 "
             "to an hour's worth",
             options.bytesPerSecond, options.burstBytes, options.requestsPerSecond,
             options.burstRequests);
  return {{options.bytesPerSecond, options.burstBytes},
          {options.requestsPerSecond, options.burstRequests}};
}

BlkSettings settingsOf(const Disk& disk, virtio::RateLimit& limit, const BlkOptions& options) {
  KJ_REQUIRE(options.id.size() <= virtio::BLK_ID_BYTES,
             "TRP-blk-007: the id of a disk has at most 20 bytes", options.id);
  KJ_REQUIRE(options.queues >= 1 && options.queues <= MAX_QUEUES,
             "TRP-blk-008: a disk has 1 to 16 queues", options.queues);
  BlkSettings settings{disk, limit, {}, options.spinMicros, options.image, options.overlay};
  memcpy(settings.id, options.id.begin(), options.id.size());
  return settings;
}

}  // namespace

BlkEngine::BlkEngine(kj::UnixEventPort& port, Disk& disk, const BlkOptions& options,
                     BlkProcess& process)
    : disk(disk),
      limit(limitOf(options)),
      settings(settingsOf(disk, limit, options)),
      discardAlignment(options.discardAlignment),
      before(options.before),
      events(process.keep("events", 0, makeEventFd())),
      toldCapacity(settings.shape().bytes),
      port(port),
      observer(port, events, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      watching(nullptr) {
  auto made = kj::heapArrayBuilder<Queue>(options.queues);
  for (uint16_t i = 0; i < options.queues; i++) {
    auto wake = process.keep("wake", i, makeEventFd());
    auto queue =
        kj::heap<BlkQueue>(settings, i, wake, events, [&process] { process.confineThread(); });
    made.add(Queue{kj::mv(wake), kj::mv(queue)});
  }
  queues = made.finish();
  watching = watch().eagerlyEvaluate([](kj::Exception&& exception) {
    KJ_LOG(FATAL, "the queues' events cannot be read", exception);
    _exit(1);
  });
}

// The threads go before the rings they may be working on.
BlkEngine::~BlkEngine() noexcept(false) {
  queues = nullptr;
}

virtio::DeviceDescription BlkEngine::describe() {
  virtio::BlkConfigSpace config = {};
  config.capacity = settings.shape().bytes / virtio::BLK_SECTOR_BYTES;
  config.sizeMax = SIZE_MAX_BYTES;
  config.segMax = SEG_MAX;
  config.blockSize = disk.shape().blockBytes;
  config.physicalBlockExponent = disk.topology().physicalExponent;
  config.alignmentOffset = disk.topology().alignmentOffset;
  config.minIoSize = disk.topology().minBlocks;
  config.optIoSize = disk.topology().optimalBlocks;
  config.writeback = durability == DiskIo::Durability::VOLATILE;
  config.queueCount = queues.size();
  config.maxDiscardSectors = MAX_DISCARD_BYTES / virtio::BLK_SECTOR_BYTES;
  config.maxDiscardSegments = 1;
  config.discardSectorAlignment = disk.shape().blockBytes / virtio::BLK_SECTOR_BYTES;
  if (settings.image != nullptr) {
    config.discardSectorAlignment = settings.image->clusterBytes() / virtio::BLK_SECTOR_BYTES;
  }
  if (settings.overlay != nullptr) {
    config.discardSectorAlignment = settings.overlay->clusterBytes() / virtio::BLK_SECTOR_BYTES;
  }
  if (discardAlignment > 0) config.discardSectorAlignment = discardAlignment;
  config.maxWriteZeroesSectors = MAX_ZEROES_BYTES / virtio::BLK_SECTOR_BYTES;
  config.maxWriteZeroesSegments = 1;
  config.writeZeroesMayUnmap = 1;

  virtio::DeviceDescription description;
  description.deviceType = virtio::ID_BLOCK;
  description.features = virtio::F_INDIRECT_DESC | virtio::F_EVENT_IDX | virtio::BLK_F_SIZE_MAX |
                         virtio::BLK_F_SEG_MAX | virtio::BLK_F_BLK_SIZE | virtio::BLK_F_FLUSH |
                         virtio::BLK_F_MQ | virtio::BLK_F_TOPOLOGY;
  if (settings.shape().readOnly) {
    description.features |= virtio::BLK_F_RO;
  } else {
    description.features |=
        virtio::BLK_F_CONFIG_WCE | virtio::BLK_F_DISCARD | virtio::BLK_F_WRITE_ZEROES;
  }
  description.queueSizes = kj::heapArray<uint16_t>(queues.size());
  for (uint16_t& size : description.queueSizes)
    size = QUEUE_SIZE;
  description.config = kj::heapArray<kj::byte>(kj::arrayPtr(&config, 1).asBytes());
  description.configWriteMask = kj::heapArray<kj::byte>(sizeof(config));
  memset(description.configWriteMask.begin(), 0, sizeof(config));
  if (!settings.shape().readOnly) {
    description.configWriteMask[offsetof(virtio::BlkConfigSpace, writeback)] = 1;
  }
  description.resetDeadlineMs = RESET_DEADLINE_MS;
  description.suspects = virtio::Suspects::ALONE;
  return description;
}

void BlkEngine::start(const virtio::GuestMemory&, uint64_t features,
                      kj::Array<virtio::ActiveQueue> rings, virtio::DriverLink& link) {
  // "Completed" means "stable" to a driver that did not take FLUSH, §5.2.6.2.
  canFlush = features & virtio::BLK_F_FLUSH;
  chooseDurability();
  active = Active{kj::mv(rings), link, nullptr};
  for (virtio::ActiveQueue& ring : KJ_ASSERT_NONNULL(active).queues) {
    queues[ring.index].queue->start(BlkWork{ring.ring.get(), ring.kick, ring.call, &durability});
  }
  tellCapacity();
}

// The one byte the driver may write. It stays as written over a reset, as the driver reads it.
void BlkEngine::writeConfig(uint32_t offset, kj::ArrayPtr<const kj::byte> data) {
  constexpr size_t WRITEBACK = offsetof(virtio::BlkConfigSpace, writeback);
  if (offset > WRITEBACK || WRITEBACK - offset >= data.size()) return;
  writeback = data[WRITEBACK - offset] & 1;
  chooseDurability();
}

void BlkEngine::chooseDurability() {
  durability = canFlush && writeback ? DiskIo::Durability::VOLATILE : DiskIo::Durability::DURABLE;
}

kj::Promise<void> BlkEngine::stop() {
  auto& held = KJ_REQUIRE_NONNULL(active, "stop() comes after start()");
  auto paf = kj::newPromiseAndFulfiller<void>();
  held.stopped = kj::mv(paf.fulfiller);
  for (virtio::ActiveQueue& ring : held.queues)
    queues[ring.index].queue->stop();
  lookAtQueues();
  return kj::mv(paf.promise);
}

kj::Promise<void> BlkEngine::takeOver() {
  return untilTheOneBeforeHasEnded().then([this] { return lookAtWhatThereIs(); });
}

// Whoever broke into it may have written there; who is dead writes no more.
kj::Promise<void> BlkEngine::untilTheOneBeforeHasEnded() {
  if (before < 0) return kj::READY_NOW;
  for (;;) {
    kj::byte bytes[64];
    ssize_t n = read(before, bytes, sizeof(bytes));
    if (n == 0) return kj::READY_NOW;
    if (n > 0 || errno == EINTR) continue;
    KJ_REQUIRE(errno == EAGAIN, "the witness cannot be read", errno);
    break;
  }
  if (beforeObserver == nullptr) {
    beforeObserver.emplace(port, before, kj::UnixEventPort::FdObserver::OBSERVE_READ);
  }
  return KJ_ASSERT_NONNULL(beforeObserver).whenBecomesReadable().then([this] {
    return untilTheOneBeforeHasEnded();
  });
}

kj::Promise<void> BlkEngine::lookAtWhatThereIs() {
  auto paf = kj::newPromiseAndFulfiller<void>();
  auto& task = takingOver.emplace(TakingOver{nullptr, kj::mv(paf.fulfiller)});
  queues[0].queue->haveDone([this, &task] {
    task.failure = kj::runCatchingExceptions([this] {
      disk.askAgain();
      if (settings.image != nullptr) settings.image->takeOver();
      if (settings.overlay != nullptr) settings.overlay->takeOver();
    });
  });
  return kj::mv(paf.promise);
}

void BlkEngine::lookAtTakingOver() {
  if (takingOver == nullptr || !queues[0].queue->isChoreDone()) return;
  auto task = kj::mv(KJ_ASSERT_NONNULL(takingOver));
  takingOver = nullptr;
  KJ_IF_MAYBE (failure, task.failure) {
    task.done->reject(kj::mv(*failure));
    return;
  }
  toldCapacity = settings.shape().bytes;  // as it will be described
  task.done->fulfill();
}

// The main thread never touches the disk: the first queue's does, under its own filter.
kj::Promise<void> BlkEngine::hostEvent(HostEvent::Reader event) {
  if (!event.isDiskSize()) return kj::READY_NOW;
  uint64_t bytes = event.getDiskSize();
  auto shape = settings.shape();
  if (shape.readOnly || settings.overlay != nullptr) {
    refuse(kj::str("TRP-blk-014: a read-only or volatile disk keeps its size"));
  }
  if (bytes % virtio::BLK_SECTOR_BYTES != 0) {
    refuse(kj::str("TRP-blk-014: the size of a disk is a multiple of 512 bytes, not ", bytes));
  }
  if (bytes < shape.bytes) {
    refuse(kj::str("TRP-blk-011: a disk of ", shape.bytes, " bytes becomes larger, never smaller"));
  }
  if (growth != nullptr) {
    refuse(kj::str("TRP-blk-014: another resize of this disk is under way"));
  }
  auto paf = kj::newPromiseAndFulfiller<void>();
  Growth& task = growth.emplace(Growth{bytes, 0, kj::mv(paf.fulfiller)});
  queues[0].queue->haveDone([this, &task] {
    task.error =
        settings.image == nullptr ? disk.grow(task.bytes) : settings.image->grow(task.bytes);
  });
  return kj::mv(paf.promise);
}

void BlkEngine::lookAtGrowth() {
  if (growth == nullptr || !queues[0].queue->isChoreDone()) return;
  auto task = kj::mv(KJ_ASSERT_NONNULL(growth));
  growth = nullptr;
  if (task.error == 0) {
    tellCapacity();
    task.done->fulfill();
  } else {
    auto what = settings.image == nullptr
                    ? "TRP-blk-013: the disk has no byte where its new end is to be"_kj
                    : "TRP-blk-012: the image cannot be made larger"_kj;
    task.done->reject(failure(kj::str(what, ": ", strerror(-task.error))));
  }
}

// While no driver is there, the next one is told when it begins.
void BlkEngine::tellCapacity() {
  static_assert(offsetof(virtio::BlkConfigSpace, capacity) == 0, "the first field, §5.2.4");
  uint64_t bytes = settings.shape().bytes;
  if (bytes == toldCapacity) return;
  KJ_IF_MAYBE (held, active) {
    uint64_t sectors = bytes / virtio::BLK_SECTOR_BYTES;
    held->link.configChanged(0, kj::arrayPtr(&sectors, 1).asBytes());
    toldCapacity = bytes;
  }
}

kj::Promise<void> BlkEngine::finish() {
  if (settings.image == nullptr || active == nullptr) return kj::READY_NOW;
  return stop();
}

void BlkEngine::showIn(const virtio::VitalSigns& signs) {
  for (uint32_t i = 0; i < queues.size(); i++)
    queues[i].queue->showIn(signs.word(1 + i));
}

kj::Promise<void> BlkEngine::watch() {
  return observer.whenBecomesReadable().then([this] {
    eventfd_t count;
    eventfd_read(events, &count);  // it only says: look
    lookAtGrowth();
    lookAtTakingOver();
    lookAtQueues();
    return watch();
  });
}

void BlkEngine::lookAtQueues() {
  KJ_IF_MAYBE (held, active) {
    bool resting = true;
    for (virtio::ActiveQueue& ring : held->queues) {
      BlkQueue& queue = *queues[ring.index].queue;
      if (queue.takeBroken()) held->link.needsReset();
      resting &= queue.atRest();
    }
    if (!resting || held->stopped == nullptr) return;
    auto stopped = kj::mv(KJ_ASSERT_NONNULL(held->stopped));
    active = nullptr;
    stopped->fulfill();
  }
}

}  // namespace troupe::blk
