// Requests per second of a queue's thread driven through shared memory without a VM, beside a bare
// preadv() loop on the same file: what the device adds to the host's own cost. And the same bytes
// in a qcow2 image, all of them allocated.
//
//   blk_throughput [tmpfs|cached|direct] [seconds per run]
//
// Two CPUs, 4 KiB random reads of 256 MiB, in polling mode. The engine runs in this process;
// blk_alone drives the executable in its jail.
#include <kj/async-io.h>
#include <kj/debug.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
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
#include "devices/blk/testing/lean_driver.h"
#include "devices/blk/testing/scratch_disk.h"
#include "devices/virtio/testing/fake_ram.h"

namespace troupe::blk {
namespace {

using testing::LeanDriver;
using testing::Medium;
using virtio::testing::FakeRam;

constexpr uint64_t DISK_BYTES = 256 << 20;
constexpr uint32_t BLOCK = 4096;
constexpr uint32_t CAPACITY = 256;
constexpr int ROUNDS = 5;

class Process final: public BlkProcess {
 public:
  kj::AutoCloseFd keep(kj::StringPtr, uint32_t, kj::AutoCloseFd fd) override { return kj::mv(fd); }
  void confineThread() override { testing::pinTo(1); }
};

class NoLink final: public virtio::DriverLink {
 public:
  void configChanged(uint32_t, kj::ArrayPtr<const kj::byte>) override {}
  void needsReset() override { KJ_FAIL_ASSERT("the ring broke"); }
};

kj::AutoCloseFd makeEventFd() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return kj::AutoCloseFd(fd);
}

testing::LeanFigures measureDevice(Disk& disk, ImageDisk* image, const LeanDriver::Load& load,
                                   double seconds) {
  auto io = kj::setupAsyncIo();
  FakeRam ram(16 << 20);
  auto memory = ram.memory();
  Process process;
  NoLink link;
  BlkOptions options;
  options.image = image;
  BlkEngine engine(io.unixEventPort, disk, options, process);
  testing::pinTo(0);
  LeanDriver driver(ram, load);
  auto kick = makeEventFd();
  auto call = makeEventFd();

  auto rings = kj::heapArrayBuilder<virtio::ActiveQueue>(1);
  rings.add(virtio::ActiveQueue{
      0, kj::heap<virtio::Virtqueue>(memory, driver.where(), virtio::RingFeatures{true, true}),
      kick, call});
  engine.start(memory, virtio::BLK_F_FLUSH, rings.finish(), link);
  testing::LeanLoop loop(driver, load, DISK_BYTES, kick);
  loop.run(seconds / 10);
  auto figures = loop.run(seconds);
  engine.stop().wait(io.waitScope);
  driver.checkStatuses();
  return figures;
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
  FormatIo io(disk, image, nullptr, CAPACITY, wake);
  auto buffer = kj::heapArray<kj::byte>(BLOCK);
  iovec piece{buffer.begin(), BLOCK};
  testing::RandomBlocks blocks(DISK_BYTES, BLOCK);
  uint64_t begin = threadNs();
  for (uint64_t i = 0; i < READS; i++) {
    auto result = io.read(kj::arrayPtr(&piece, 1), blocks.next(), 0);
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

// A read costs by the size of the pages that the page cache holds of a file, and that comes of how
// the file was written. Both files are taken in anew, the same way.
void enterCache(testing::ScratchDisk& file) {
  struct stat info;
  KJ_SYSCALL(fstat(file.fd(), &info));
  file.dropCache();
  for (uint64_t offset = 0; offset < uint64_t(info.st_size); offset += 1 << 20)
    file.contents(offset, kj::min(uint64_t(info.st_size) - offset, uint64_t(1) << 20));
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
  if (medium == Medium::CACHED) {
    enterCache(file);
    enterCache(imageFile);
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
      LeanDriver::Load load{depth, BLOCK, false};
      testing::pinTo(1);
      bare.push_back(testing::measureBareLoop(file.fd(), load, DISK_BYTES, seconds));
      auto figures = measureDevice(disk, nullptr, load, seconds);
      ours.push_back(figures.iops);
      kicks.push_back(figures.kicksPerRequest);
      ratios.push_back(ours.back() / bare.back());
      images.push_back(measureDevice(imageInFile, &image, load, seconds).iops);
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
