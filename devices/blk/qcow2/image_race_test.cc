// Several threads on one image, as the queues of a disk are: each has clusters of its own, between
// those of the others, so their tables are the same. For the thread sanitizer, too.

#include <errno.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "devices/blk/qcow2/testing/blank_image.h"
#include "devices/blk/qcow2/testing/whole_disk.h"

namespace troupe::blk::qcow2 {
namespace {

constexpr uint32_t CLUSTER_BITS = 12;
constexpr uint64_t CLUSTER = 1 << CLUSTER_BITS;
constexpr uint64_t CLUSTERS = 3 * 512;
constexpr uint32_t THREADS = 3;
constexpr int STEPS = 3000;

class HostFile final: public ImageFile {
 public:
  explicit HostFile(kj::ArrayPtr<const kj::byte> bytes) {
    int made;
    KJ_SYSCALL(made = memfd_create("image", MFD_CLOEXEC));
    fd = kj::AutoCloseFd(made);
    KJ_ASSERT(writeFully(*this, bytes, 0) == 0);
  }
  int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override {
    return orErrno(preadv(fd, pieces.begin(), int(pieces.size()), offset));
  }
  int64_t write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override {
    return orErrno(pwritev(fd, pieces.begin(), int(pieces.size()), offset));
  }
  int sync() override { return 0; }
  int truncate(uint64_t bytes) override { return int(orErrno(ftruncate(fd, bytes))); }
  int punch(uint64_t, uint64_t) override { return 0; }
  uint64_t size() override {
    struct stat info;
    KJ_SYSCALL(fstat(fd, &info));
    return info.st_size;
  }
  uint32_t blockBytes() const override { return 1; }

 private:
  static int64_t orErrno(int64_t result) { return result < 0 ? -errno : result; }
  kj::AutoCloseFd fd;
};

// One thread's way to the image: each transfer is counted, as a queue's are.
class Lane {
 public:
  Lane(Image& image, ImageFile& file, uint32_t number) : image(image), file(file), number(number) {}

  void read(uint64_t offset, kj::ArrayPtr<kj::byte> bytes) {
    for (size_t done = 0; done < bytes.size();) {
      iovec piece{bytes.begin() + done, bytes.size() - done};
      uint8_t begun = image.inFlight().begin(number);
      KJ_ASSERT(image.prepare(offset + done) == 0);
      auto extent = image.locate(offset + done, piece.iov_len);
      int64_t got;
      if (extent.kind == Extent::Kind::DATA) {
        piece.iov_len = extent.bytes;
        got = file.read(kj::arrayPtr(&piece, 1), extent.offset);
      } else {
        got = image.read(kj::arrayPtr(&piece, 1), offset + done);
      }
      image.inFlight().end(number, begun);
      KJ_ASSERT(got > 0, got);
      done += got;
    }
  }
  void write(uint64_t offset, kj::ArrayPtr<kj::byte> bytes) {
    for (size_t done = 0; done < bytes.size();) {
      iovec piece{bytes.begin() + done, bytes.size() - done};
      uint8_t begun = image.inFlight().begin(number);
      auto extent = image.locateForWrite(offset + done, piece.iov_len);
      int64_t put;
      if (extent.kind == Extent::Kind::DATA) {
        piece.iov_len = extent.bytes;
        put = file.write(kj::arrayPtr(&piece, 1), extent.offset);
      } else {
        put = image.write(kj::arrayPtr(&piece, 1), offset + done);
      }
      image.inFlight().end(number, begun);
      KJ_ASSERT(put >= 0, put);
      done += put;
    }
  }

 private:
  Image& image;
  ImageFile& file;
  const uint32_t number;
};

// Writes, discards, zeroes, flushes and reads clusters of the thread's own, against what each must
// hold: one byte all over.
void work(Image& image, ImageFile& file, uint32_t number, std::atomic<uint32_t>& wrong) {
  Lane lane(image, file, number);
  std::mt19937 random(number + 1);
  std::vector<kj::byte> holds(CLUSTERS / THREADS, 0);
  std::vector<kj::byte> buffer(CLUSTER);
  auto bytes = kj::arrayPtr(buffer.data(), buffer.size());
  for (int step = 0; step < STEPS; step++) {
    size_t mine = random() % holds.size();
    uint64_t offset = (mine * THREADS + number) * CLUSTER;
    switch (random() % 8) {
      case 0:
        wrong += image.discard(offset, CLUSTER) != 0;
        holds[mine] = 0;
        break;
      case 1:
        wrong += image.writeZeroes(offset, CLUSTER, Image::Space::GIVE_BACK) != 0;
        holds[mine] = 0;
        break;
      case 2:
        if (step % 64 == 0) wrong += image.flush() != 0;
        break;
      case 3:
      case 4:
      case 5:
        holds[mine] = kj::byte(random() % 255 + 1);
        memset(buffer.data(), holds[mine], buffer.size());
        lane.write(offset, bytes);
        break;
      default:
        lane.read(offset, bytes);
        for (kj::byte byte : buffer)
          wrong += byte != holds[mine];
    }
  }
  for (size_t mine = 0; mine < holds.size(); mine++) {
    lane.read((mine * THREADS + number) * CLUSTER, bytes);
    for (kj::byte byte : buffer)
      wrong += byte != holds[mine];
  }
}

TEST(ImageRace, ThreadsFindWhatTheyWroteAndNothingElse) {
  for (bool lazy : {false, true}) {
    testing::BlankImage blank;
    blank.clusterBits = CLUSTER_BITS;
    blank.size = CLUSTERS * CLUSTER;
    blank.lazyRefcounts = lazy;
    HostFile file(testing::makeBlank(blank));
    std::atomic<uint32_t> wrong{0};
    {
      auto image = testing::openAlone(file);
      std::vector<std::thread> threads;
      for (uint32_t i = 0; i < THREADS; i++)
        threads.emplace_back([&, i] { work(*image, file, i, wrong); });
      for (auto& thread : threads)
        thread.join();
      EXPECT_EQ(image->close(), 0);
    }
    EXPECT_EQ(wrong, 0u);
    testing::openAlone(file);  // throws for an image that contradicts itself
  }
}

}  // namespace
}  // namespace troupe::blk::qcow2
