#include "devices/blk/testing/lean_driver.h"

#include <kj/debug.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include "devices/virtio/spin.h"

namespace troupe::blk::testing {
namespace {

constexpr uint64_t LOOKS_PER_CLOCK = 256;
constexpr uint64_t TRANSFERS_PER_CLOCK = 16;
constexpr uint64_t PAGE = 4096;

}  // namespace

LeanDriver::LeanDriver(virtio::testing::FakeRam& ram, const Load& load)
    : ram(ram),
      depth(load.depth),
      type(load.write ? virtio::BLK_T_OUT : virtio::BLK_T_IN),
      layout{RING, ram.allocate(virtio::descriptorTableBytes(RING), PAGE),
             ram.allocate(virtio::availableRingBytes(RING), PAGE),
             ram.allocate(virtio::usedRingBytes(RING), PAGE)},
      headers(ram.allocate(depth * sizeof(virtio::BlkRequestHeader))),
      statuses(ram.allocate(depth)),
      available(ram.bytes(layout.availableRing, virtio::availableRingBytes(RING)).begin()),
      used(ram.bytes(layout.usedRing, virtio::usedRingBytes(RING)).begin()) {
  KJ_REQUIRE(depth > 0 && depth * 3 <= RING, "as many chains of three as the ring holds", depth);
  memset(available, 0, virtio::availableRingBytes(RING));
  memset(used, 0, virtio::usedRingBytes(RING));
  memset(ram.bytes(statuses, depth).begin(), virtio::BLK_S_OK, depth);
  uint64_t data = ram.allocate(uint64_t(depth) * load.bytes, PAGE);
  auto table = reinterpret_cast<virtio::Descriptor*>(
      ram.bytes(layout.descriptorTable, virtio::descriptorTableBytes(RING)).begin());
  uint16_t direction = load.write ? 0 : virtio::DESC_F_WRITE;
  for (uint32_t i = 0; i < depth; i++) {
    uint16_t first = i * 3;
    table[first] = {headers + i * 16, 16, virtio::DESC_F_NEXT, uint16_t(first + 1)};
    table[first + 1] = {data + uint64_t(i) * load.bytes, load.bytes,
                        uint16_t(virtio::DESC_F_NEXT | direction), uint16_t(first + 2)};
    table[first + 2] = {statuses + i, 1, virtio::DESC_F_WRITE, 0};
  }
}

void LeanDriver::checkStatuses() const {
  for (kj::byte status : ram.bytes(statuses, depth))
    KJ_REQUIRE(status == virtio::BLK_S_OK, "a request failed", status);
}

LeanLoop::LeanLoop(LeanDriver& driver, const LeanDriver::Load& load, uint64_t diskBytes, int kick)
    : driver(driver), blocks(diskBytes, load.bytes), kick(kick) {
  for (uint32_t i = 0; i < load.depth; i++)
    driver.submit(i, blocks.next());
}

void LeanLoop::notify() {
  if (!driver.publish()) return;
  ++kicks;
  KJ_SYSCALL(eventfd_write(kick, 1));
}

LeanFigures LeanLoop::run(double seconds) {
  uint64_t begin = virtio::monotonicNs();
  uint64_t end = begin + uint64_t(seconds * 1e9);
  uint64_t done = 0;
  uint64_t now;
  kicks = 0;
  notify();
  do {
    for (uint64_t i = 0; i < LOOKS_PER_CLOCK; i++) {
      driver.takeUsed([&](uint32_t chain) {
        ++done;
        driver.submit(chain, blocks.next());
      });
      notify();
      __builtin_ia32_pause();
    }
    now = virtio::monotonicNs();
  } while (now < end);
  return {done / ((now - begin) / 1e9), done == 0 ? 0 : double(kicks) / done};
}

double measureBareLoop(int fd, const LeanDriver::Load& load, uint64_t diskBytes, double seconds) {
  uint64_t all = uint64_t(load.depth) * load.bytes;
  virtio::testing::FakeRam ram((all + (1 << 20)) & ~(PAGE - 1));
  auto buffers = ram.bytes(ram.allocate(all, PAGE), all);
  memset(buffers.begin(), 1, buffers.size());
  RandomBlocks blocks(diskBytes, load.bytes);
  auto run = [&](double time) {
    uint64_t begin = virtio::monotonicNs();
    uint64_t end = begin + uint64_t(time * 1e9);
    uint64_t done = 0;
    uint64_t now;
    do {
      for (uint64_t i = 0; i < TRANSFERS_PER_CLOCK; i++, done++) {
        iovec piece{buffers.begin() + done % load.depth * load.bytes, load.bytes};
        ssize_t moved = load.write ? pwritev(fd, &piece, 1, blocks.next())
                                   : preadv(fd, &piece, 1, blocks.next());
        KJ_ASSERT(moved == load.bytes, moved);
      }
      now = virtio::monotonicNs();
    } while (now < end);
    return done / ((now - begin) / 1e9);
  };
  run(seconds / 10);
  return run(seconds);
}

void pinTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof(set), &set);  // on one CPU it stays where it is
}

}  // namespace troupe::blk::testing
