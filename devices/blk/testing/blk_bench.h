#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <atomic>
#include <cstdint>

#include "devices/blk/blk_engine.h"
#include "devices/blk/blk_wire.h"
#include "devices/blk/volatile_disk.h"
#include "devices/virtio/testing/device_bench.h"
#include "devices/virtio/testing/fake_broker.h"
#include "devices/virtio/testing/fake_driver.h"

namespace troupe::blk::testing {

constexpr uint64_t FEATURES = (1ull << 32) | (1ull << 28) | (1ull << 29) | virtio::BLK_F_FLUSH |
                              virtio::BLK_F_SEG_MAX | virtio::BLK_F_BLK_SIZE;

// A test's own process as an engine's: fds stay where they are, no filter.
class OpenProcess final: public BlkProcess {
 public:
  kj::AutoCloseFd keep(kj::StringPtr, uint32_t, kj::AutoCloseFd fd) override { return kj::mv(fd); }
  void confineThread() override { ++threads; }
  std::atomic<uint32_t> threads{0};
};

// The driver of a disk, with RAM of its own: requests as they lie there.
class BlkDriver {
 public:
  virtio::testing::FakeRam ram{64 << 20};
  kj::Vector<kj::Own<virtio::testing::FakeDriver>> drivers;  // by queue

  virtio::testing::FakeDriver& driver(uint16_t queue = 0) { return *drivers[queue]; }

  // What stands in a request's status until it is answered.
  static constexpr kj::byte NO_STATUS = 0xee;

  // A request under way. `data` is the first buffer's address, 0 where there is none.
  struct Sent {
    uint16_t head;
    uint64_t data;
    uint64_t status;
  };
  Sent send(uint32_t type, uint64_t sector, kj::ArrayPtr<const virtio::testing::Buffer> data,
            uint16_t queue = 0);
  Sent sendRead(uint64_t sector, uint32_t bytes, uint16_t queue = 0);
  Sent sendWrite(uint64_t sector, kj::ArrayPtr<const kj::byte> bytes, uint16_t queue = 0);
  Sent sendFlush(uint16_t queue = 0) { return send(virtio::BLK_T_FLUSH, 0, nullptr, queue); }

  struct Reply {
    uint8_t status;
    uint32_t written;
  };
  // Waits for the reply of the one request that is under way.
  Reply wait(virtio::testing::FakeBroker& broker, const Sent& sent, uint16_t queue = 0);

  uint8_t status(const Sent& sent) { return ram.bytes(sent.status, 1)[0]; }
  kj::ArrayPtr<kj::byte> data(const Sent& sent, uint64_t size) {
    return ram.bytes(sent.data, size);
  }
  // Guest memory for data, aligned for O_DIRECT.
  uint64_t allocate(uint64_t bytes) { return ram.allocate(bytes, 4096); }
};

// One disk, its engine in this process, and its driver.
class BlkBench: public BlkDriver {
 public:
  struct Options {
    Disk::Access access = Disk::Access::READ_WRITE;
    uint16_t queues = 1;
    uint16_t queueSize = 256;
    uint32_t spinMicros = 50;
    uint64_t features = FEATURES;
    bool activated = true;
    BlkOptions limits;           // only its rates
    uint64_t volatileBytes = 0;  // of memory for what is written; 0: that goes to the disk
  };
  explicit BlkBench(int fd) : BlkBench(fd, Options()) {}
  BlkBench(int fd, const Options& options);
  // Ends with a reset, as a device that is not its whole process must: RAM goes with the actor.
  ~BlkBench() noexcept(false);
  KJ_DISALLOW_COPY(BlkBench);

 private:
  Disk disk;
  kj::AutoCloseFd memory;
  kj::Own<VolatileDisk> overlay;
  OpenProcess process;
  uint64_t features;

 public:
  virtio::testing::DeviceBench device;

  Reply wait(const Sent& sent, uint16_t queue = 0) { return BlkDriver::wait(device, sent, queue); }
  // A new ring on queue 0 after a reset.
  void activateAgain();
};

// What troupe hands over with a volatile disk: `bytes` bytes of zeroes.
kj::AutoCloseFd makeMemory(uint64_t bytes);

kj::Array<kj::byte> filled(size_t size, kj::byte value);
// The bytes a ScratchDisk is made with.
kj::Array<kj::byte> sectors(uint64_t first, uint64_t count);

}  // namespace troupe::blk::testing
