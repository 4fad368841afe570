// Requests per second of a queue's thread driven through shared memory without a VM, beside a bare
// preadv() loop on the same file: what the device adds to the host's own cost. And the same bytes
// in a qcow2 image, all of them allocated.
//
//   blk_throughput [tmpfs|cached|direct] [seconds per run]
//
// Two CPUs, 4 KiB random reads of 256 MiB, in polling mode. The driver here is lean: its
// descriptors stay as they are and it only moves indices.
#include <kj/async-io.h>
#include <kj/debug.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "devices/blk/blk_engine.h"
#include "devices/blk/format_io.h"
#include "devices/blk/image_disk.h"
#include "devices/blk/qcow2/testing/blank_image.h"
#include "devices/blk/testing/scratch_disk.h"
#include "devices/virtio/guest_word.h"
#include "devices/virtio/spin.h"
#include "devices/virtio/testing/fake_ram.h"
#include "devices/virtio/wire.h"

namespace troupe::blk {
namespace {

using testing::Medium;
using virtio::testing::FakeRam;

constexpr uint64_t DISK_BYTES = 256 << 20;
constexpr uint32_t BLOCK = 4096;
constexpr uint16_t RING = 256;
constexpr uint64_t LOOKS_PER_CLOCK = 256;
constexpr int ROUNDS = 5;

class Process final: public BlkProcess {
 public:
  kj::AutoCloseFd keep(kj::StringPtr, uint32_t, kj::AutoCloseFd fd) override { return kj::mv(fd); }
  void confineThread() override { pin(1); }

  static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);  // on one CPU it stays where it is
  }
};

class NoLink final: public virtio::DriverLink {
 public:
  void configChanged(uint32_t, kj::ArrayPtr<const kj::byte>) override {}
  void needsReset() override { KJ_FAIL_ASSERT("the ring broke"); }
};

class Random {
 public:
  uint64_t block() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % (DISK_BYTES / BLOCK);
  }

 private:
  uint64_t state = 88172645463325252;
};

// A ring whose slot i always holds chain i: header, 4 KiB, status.
class LeanDriver {
 public:
  LeanDriver(FakeRam& ram, uint32_t depth)
      : ram(ram),
        depth(depth),
        layout{RING, ram.allocate(virtio::descriptorTableBytes(RING), 4096),
               ram.allocate(virtio::availableRingBytes(RING), 4096),
               ram.allocate(virtio::usedRingBytes(RING), 4096)},
        headers(ram.allocate(depth * sizeof(virtio::BlkRequestHeader))),
        statuses(ram.allocate(depth)),
        available(ram.bytes(layout.availableRing, virtio::availableRingBytes(RING)).begin()),
        used(ram.bytes(layout.usedRing, virtio::usedRingBytes(RING)).begin()) {
    memset(available, 0, virtio::availableRingBytes(RING));
    memset(used, 0, virtio::usedRingBytes(RING));
    uint64_t data = ram.allocate(uint64_t(depth) * BLOCK, 4096);
    auto table = reinterpret_cast<virtio::Descriptor*>(
        ram.bytes(layout.descriptorTable, virtio::descriptorTableBytes(RING)).begin());
    for (uint32_t i = 0; i < depth; i++) {
      uint16_t first = i * 3;
      table[first] = {headers + i * 16, 16, virtio::DESC_F_NEXT, uint16_t(first + 1)};
      table[first + 1] = {data + uint64_t(i) * BLOCK, BLOCK,
                          virtio::DESC_F_NEXT | virtio::DESC_F_WRITE, uint16_t(first + 2)};
      table[first + 2] = {statuses + i, 1, virtio::DESC_F_WRITE, 0};
    }
  }

  virtio::RingLayout where() const { return layout; }

  void submit(uint32_t chain, Random& random) {
    virtio::BlkRequestHeader header{virtio::BLK_T_IN, 0, random.block() * (BLOCK / 512)};
    memcpy(ram.bytes(headers + chain * 16, 16).begin(), &header, 16);
    virtio::storeWord<uint16_t>(
        available + virtio::AVAIL_RING_OFFSET + (nextAvailable & (RING - 1)) * 2, chain * 3);
    ++nextAvailable;
  }
  // True when the device wants to be notified.
  bool publish() {
    uint16_t before = published;
    if (before == nextAvailable) return false;
    published = nextAvailable;
    virtio::storeIndex(available + virtio::AVAIL_INDEX_OFFSET, nextAvailable);
    uint16_t event = virtio::loadIndex(used + virtio::USED_RING_OFFSET + RING * 8);
    return virtio::passesEvent(event, before, nextAvailable);
  }
  // Calls done(chain) for each request that has ended.
  template <typename Done>
  void takeUsed(Done&& done) {
    uint16_t now = virtio::loadIndex(used + virtio::USED_INDEX_OFFSET);
    for (; nextUsed != now; nextUsed++) {
      done(virtio::loadWord<uint32_t>(used + virtio::USED_RING_OFFSET +
                                      (nextUsed & (RING - 1)) * 8) /
           3);
    }
    // No interrupt until the index comes round again.
    virtio::storeWord<uint16_t>(available + virtio::AVAIL_RING_OFFSET + RING * 2, nextUsed - 1);
  }
  void checkStatuses() {
    for (kj::byte status : ram.bytes(statuses, depth))
      KJ_REQUIRE(status == virtio::BLK_S_OK, status);
  }

 private:
  FakeRam& ram;
  const uint32_t depth;
  const virtio::RingLayout layout;
  const uint64_t headers;
  const uint64_t statuses;
  kj::byte* const available;
  kj::byte* const used;
  uint16_t nextAvailable = 0;
  uint16_t published = 0;
  uint16_t nextUsed = 0;
};

kj::AutoCloseFd makeEventFd() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return kj::AutoCloseFd(fd);
}

struct Figures {
  double iops;
  double kicksPerRequest;
};

Figures measureDevice(const Disk& disk, ImageDisk* image, uint32_t depth, double seconds) {
  auto io = kj::setupAsyncIo();
  FakeRam ram(16 << 20);
  auto memory = ram.memory();
  Process process;
  NoLink link;
  BlkOptions options;
  options.image = image;
  BlkEngine engine(io.unixEventPort, disk, options, process);
  Process::pin(0);
  LeanDriver driver(ram, depth);
  auto kick = makeEventFd();
  auto call = makeEventFd();

  auto rings = kj::heapArrayBuilder<virtio::ActiveQueue>(1);
  rings.add(virtio::ActiveQueue{
      0, kj::heap<virtio::Virtqueue>(memory, driver.where(), virtio::RingFeatures{true, true}),
      kick, call});
  engine.start(memory, virtio::BLK_F_FLUSH, rings.finish(), link);

  Random random;
  uint64_t done = 0;
  uint64_t kicks = 0;
  auto notify = [&] {
    if (!driver.publish()) return;
    ++kicks;
    eventfd_write(kick, 1);
  };
  auto run = [&](double time) {
    uint64_t begin = virtio::monotonicNs();
    uint64_t end = begin + uint64_t(time * 1e9);
    done = kicks = 0;
    uint64_t now;
    do {
      for (uint64_t i = 0; i < LOOKS_PER_CLOCK; i++) {
        driver.takeUsed([&](uint32_t chain) {
          ++done;
          driver.submit(chain, random);
        });
        notify();
        __builtin_ia32_pause();
      }
      now = virtio::monotonicNs();
    } while (now < end);
    return done / ((now - begin) / 1e9);
  };
  for (uint32_t i = 0; i < depth; i++)
    driver.submit(i, random);
  notify();
  run(seconds / 10);
  double iops = run(seconds);
  double kicksPerRequest = double(kicks) / done;
  engine.stop().wait(io.waitScope);
  driver.checkStatuses();
  return {iops, kicksPerRequest};
}

double measureBareLoop(int fd, uint32_t depth, double seconds) {
  Process::pin(1);
  FakeRam ram(16 << 20);
  uint64_t data = ram.allocate(uint64_t(depth) * BLOCK, 4096);
  auto buffers = ram.bytes(data, uint64_t(depth) * BLOCK);
  Random random;
  auto run = [&](double time) {
    uint64_t begin = virtio::monotonicNs();
    uint64_t end = begin + uint64_t(time * 1e9);
    uint64_t done = 0;
    uint64_t now;
    do {
      for (uint64_t i = 0; i < 16; i++, done++) {
        iovec piece{buffers.begin() + done % depth * BLOCK, BLOCK};
        KJ_ASSERT(preadv(fd, &piece, 1, random.block() * BLOCK) == BLOCK);
      }
      now = virtio::monotonicNs();
    } while (now < end);
    return done / ((now - begin) / 1e9);
  };
  run(seconds / 10);
  return run(seconds);
}

uint64_t threadNs() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return uint64_t(now.tv_sec) * 1000000000 + now.tv_nsec;
}

// What a read costs the queue's thread, between the request and the bytes; other work on the CPUs
// does not count.
double measureRead(const Disk& disk, ImageDisk* image) {
  constexpr uint64_t READS = 100000;
  auto wake = makeEventFd();
  FormatIo io(disk, image, RING, wake);
  auto buffer = kj::heapArray<kj::byte>(BLOCK);
  iovec piece{buffer.begin(), BLOCK};
  Random random;
  uint64_t begin = threadNs();
  for (uint64_t i = 0; i < READS; i++) {
    auto result = io.read(kj::arrayPtr(&piece, 1), random.block() * BLOCK, 0);
    while (result == nullptr) {
      io.submit();
      io.takeCompletions([&](uint64_t, int64_t got) { result = got; });
    }
    KJ_ASSERT(KJ_ASSERT_NONNULL(result) == BLOCK);
  }
  return double(threadNs() - begin) / READS;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// A file with an empty image in it.
kj::Own<Disk> makeImage(int fd) {
  auto blank = qcow2::testing::makeBlank({3, 16, 4, DISK_BYTES});
  qcow2::AlignedBytes bytes(blank.size());
  memcpy(bytes.begin(), blank.begin(), blank.size());
  Disk empty(fd, Disk::Access::READ_WRITE, builtInRingRules(), Disk::Contents::IMAGE);
  DiskFile file(empty);
  KJ_REQUIRE(file.truncate(0) == 0 && qcow2::writeFully(file, bytes.all(), 0) == 0);
  return kj::heap<Disk>(fd, Disk::Access::READ_WRITE, builtInRingRules(), Disk::Contents::IMAGE);
}

void fill(qcow2::Image& image) {
  qcow2::AlignedBytes bytes(1 << 20);
  bytes.clear();
  for (uint64_t offset = 0; offset < DISK_BYTES;) {
    iovec piece{bytes.begin(), bytes.size()};
    int64_t written = image.write(kj::arrayPtr(&piece, 1), offset);
    KJ_REQUIRE(written > 0, written);
    offset += written;
  }
  KJ_REQUIRE(image.close() == 0);
}

void compare(const char* name, Medium medium, double seconds) {
  testing::ScratchDisk file(medium, DISK_BYTES);
  Disk disk(file.fd(), Disk::Access::READ_ONLY);
  testing::ScratchDisk imageFile(medium, 512);
  {
    auto empty = makeImage(imageFile.fd());
    ImageDisk image(*empty, "image.qcow2", nullptr);
    fill(image.image());
  }
  Disk imageInFile(imageFile.fd(), Disk::Access::READ_WRITE, builtInRingRules(),
                   Disk::Contents::IMAGE);
  std::vector<double> rawNs, imageNs, ratioNs;
  for (int i = 0; i < ROUNDS; i++) {
    ImageDisk image(imageInFile, "image.qcow2", nullptr);
    rawNs.push_back(measureRead(disk, nullptr));
    imageNs.push_back(measureRead(imageInFile, &image));
    ratioNs.push_back(rawNs.back() / imageNs.back());
  }
  printf("%-6s CPU time of a read: raw %.0f ns, qcow2 %.0f ns, ratio %.2f [%.2f-%.2f]\n", name,
         median(rawNs), median(imageNs), median(ratioNs),
         *std::min_element(ratioNs.begin(), ratioNs.end()),
         *std::max_element(ratioNs.begin(), ratioNs.end()));
  for (uint32_t depth : {1u, 32u}) {
    std::vector<double> ours, bare, ratios, kicks, images, imageRatios;
    for (int i = 0; i < ROUNDS; i++) {
      // A new one each time: an engine's queues keep their lanes.
      ImageDisk image(imageInFile, "image.qcow2", nullptr);
      bare.push_back(measureBareLoop(file.fd(), depth, seconds));
      Figures figures = measureDevice(disk, nullptr, depth, seconds);
      ours.push_back(figures.iops);
      kicks.push_back(figures.kicksPerRequest);
      ratios.push_back(ours.back() / bare.back());
      images.push_back(measureDevice(imageInFile, &image, depth, seconds).iops);
      imageRatios.push_back(images.back() / ours.back());
    }
    printf(
        "%-6s depth %-2u  device %7.1fk IOPS  bare preadv loop %7.1fk  ratio %.2f [%.2f-%.2f]  "
        "kicks/request %.4f  qcow2 %7.1fk  of raw %.2f [%.2f-%.2f]\n",
        name, depth, median(ours) / 1e3, median(bare) / 1e3, median(ratios),
        *std::min_element(ratios.begin(), ratios.end()),
        *std::max_element(ratios.begin(), ratios.end()), median(kicks), median(images) / 1e3,
        median(imageRatios), *std::min_element(imageRatios.begin(), imageRatios.end()),
        *std::max_element(imageRatios.begin(), imageRatios.end()));
    fflush(stdout);
  }
}

}  // namespace
}  // namespace troupe::blk

int main(int argc, char** argv) {
  using troupe::blk::testing::Medium;
  struct {
    const char* name;
    Medium medium;
  } const media[] = {
      {"tmpfs", Medium::MEMORY}, {"cached", Medium::CACHED}, {"direct", Medium::DIRECT}};
  double seconds = argc > 2 ? atof(argv[2]) : 0.3;
  for (auto& medium : media) {
    if (argc > 1 && strcmp(argv[1], medium.name) != 0) continue;
    if (!troupe::blk::testing::isAvailable(medium.medium)) continue;
    troupe::blk::compare(medium.name, medium.medium, seconds);
  }
}
