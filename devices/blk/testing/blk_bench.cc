#include "devices/blk/testing/blk_bench.h"

#include <kj/debug.h>
#include <kj/vector.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "devices/blk/testing/scratch_disk.h"

namespace troupe::blk::testing {

using virtio::testing::Buffer;
using virtio::testing::FakeDriver;
using virtio::testing::readable;
using virtio::testing::writable;

BlkBench::BlkBench(int fd, const Options& options)
    : disk(fd, options.access),
      features(options.features),
      device(ram, [&](kj::AsyncIoContext& io) {
        BlkOptions of = options.limits;
        of.id = "disk-of-a-test";
        if (options.volatileBytes > 0) {
          memory = makeMemory(disk.shape().bytes);
          overlay = kj::heap<VolatileDisk>(memory, disk, nullptr, options.volatileBytes);
          of.overlay = overlay;
        }
        of.queues = options.queues;
        of.spinMicros = options.spinMicros;
        return kj::heap<BlkEngine>(io.unixEventPort, disk, of, process);
      }) {
  device.attach();
  for (uint16_t i = 0; i < options.queues; i++)
    drivers.add(kj::heap<FakeDriver>(ram, options.queueSize));
  if (!options.activated) return;
  if (options.queues == 1) {
    device.activate(features, {drivers[0]});
  } else {
    device.activate(features, {drivers[0], drivers[1]});
  }
}

BlkBench::~BlkBench() noexcept(false) {
  device.reset();
}

void BlkBench::activateAgain() {
  drivers[0] = kj::heap<FakeDriver>(ram, drivers[0]->size());
  device.activate(features, {drivers[0]});
}

BlkDriver::Sent BlkDriver::send(uint32_t type, uint64_t sector, kj::ArrayPtr<const Buffer> data,
                                uint16_t queue) {
  virtio::BlkRequestHeader header{type, 0, sector};
  kj::Vector<Buffer> buffers;
  buffers.add(driver(queue).readableBuffer(kj::arrayPtr(&header, 1).asBytes()));
  buffers.addAll(data);
  uint64_t status = ram.allocate(1);
  ram.bytes(status, 1)[0] = NO_STATUS;
  buffers.add(writable(status, 1));
  uint16_t head = driver(queue).add(buffers);
  return Sent{head, data.size() > 0 ? data[0].address : 0, status};
}

BlkDriver::Sent BlkDriver::sendRead(uint64_t sector, uint32_t bytes, uint16_t queue) {
  Buffer buffer = writable(allocate(bytes), bytes);
  return send(virtio::BLK_T_IN, sector, kj::arrayPtr(&buffer, 1), queue);
}

BlkDriver::Sent BlkDriver::sendWrite(uint64_t sector, kj::ArrayPtr<const kj::byte> bytes,
                                     uint16_t queue) {
  Buffer buffer = readable(allocate(bytes.size()), bytes.size());
  memcpy(ram.bytes(buffer.address, buffer.length).begin(), bytes.begin(), bytes.size());
  return send(virtio::BLK_T_OUT, sector, kj::arrayPtr(&buffer, 1), queue);
}

BlkDriver::Reply BlkDriver::wait(virtio::testing::FakeBroker& broker, const Sent& sent,
                                 uint16_t queue) {
  auto used = broker.waitForUsed(queue, driver(queue));
  KJ_ASSERT(used.head == sent.head);
  return Reply{status(sent), used.written};
}

kj::AutoCloseFd makeMemory(uint64_t bytes) {
  int fd;
  KJ_SYSCALL(fd = memfd_create("disk-overlay", MFD_CLOEXEC));
  kj::AutoCloseFd memory(fd);
  KJ_SYSCALL(ftruncate(memory, bytes));
  return memory;
}

kj::Array<kj::byte> filled(size_t size, kj::byte value) {
  auto bytes = kj::heapArray<kj::byte>(size);
  memset(bytes.begin(), value, size);
  return bytes;
}

kj::Array<kj::byte> sectors(uint64_t first, uint64_t count) {
  auto bytes = kj::heapArray<kj::byte>(count * 512);
  for (uint64_t i = 0; i < count; i++)
    memset(bytes.begin() + i * 512, sectorByte(first + i), 512);
  return bytes;
}

}  // namespace troupe::blk::testing
