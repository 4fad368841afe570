#include "devices/net/capture.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace troupe::net {
namespace {

kj::AutoCloseFd makeFile() {
  char path[] = "/tmp/troupe-capture-XXXXXX";
  int fd;
  KJ_SYSCALL(fd = mkostemp(path, O_CLOEXEC));
  kj::AutoCloseFd file(fd);
  KJ_SYSCALL(unlink(path));
  return file;
}

std::vector<kj::byte> contentOf(int fd) {
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info));
  std::vector<kj::byte> bytes(info.st_size);
  KJ_ASSERT(pread(fd, bytes.data(), bytes.size(), 0) == info.st_size);
  return bytes;
}

uint32_t wordAt(const std::vector<kj::byte>& bytes, size_t offset) {
  uint32_t word;
  memcpy(&word, bytes.data() + offset, sizeof(word));
  return word;
}

const kj::byte FRAME[100] = {1, 2, 3, 4};

TEST(Capture, WritesWhatProgramsForPcapRead) {
  auto file = makeFile();
  Capture capture(file, 1000, 65535);
  time_t before = time(nullptr);
  capture.add(FRAME);
  auto bytes = contentOf(file);
  ASSERT_EQ(bytes.size(), 24 + 16 + sizeof(FRAME));
  EXPECT_EQ(wordAt(bytes, 0), 0xa1b23c4d);      // nanoseconds
  EXPECT_EQ(wordAt(bytes, 4), 2u | 4u << 16);   // version 2.4
  EXPECT_EQ(wordAt(bytes, 16), 65535);          // of a frame
  EXPECT_EQ(wordAt(bytes, 20), 1);              // Ethernet
  EXPECT_GE(wordAt(bytes, 24) + 1, before);     // seconds; the clock may have been set
  EXPECT_LT(wordAt(bytes, 28), 1000000000);     // and nanoseconds
  EXPECT_EQ(wordAt(bytes, 32), sizeof(FRAME));  // kept
  EXPECT_EQ(wordAt(bytes, 36), sizeof(FRAME));  // there was
  EXPECT_EQ(memcmp(bytes.data() + 40, FRAME, sizeof(FRAME)), 0);
}

TEST(Capture, KeepsTheBeginningOfALongFrame) {
  auto file = makeFile();
  Capture capture(file, 1000, 64);
  capture.add(FRAME);
  auto bytes = contentOf(file);
  EXPECT_EQ(bytes.size(), 24 + 16 + 64);
  EXPECT_EQ(wordAt(bytes, 32), 64);
  EXPECT_EQ(wordAt(bytes, 36), sizeof(FRAME));
}

TEST(Capture, EndsWithTheLastFrameThatFits) {
  auto file = makeFile();
  Capture capture(file, 24 + 2 * 116, 65535);
  for (int i = 0; i < 5; i++)
    capture.add(FRAME);
  capture.add(kj::arrayPtr(FRAME, 1));  // the file has no hole where the one before is missing
  EXPECT_EQ(contentOf(file).size(), 24 + 2 * 116);
}

TEST(Capture, EndsWhereTheHostTakesNoMore) {
  auto file = makeFile();
  Capture capture(file, 1 << 20, 65535);
  capture.add(FRAME);
  int readOnly;
  KJ_SYSCALL(readOnly = open(kj::str("/proc/self/fd/", file.get()).cStr(), O_RDONLY | O_CLOEXEC));
  KJ_SYSCALL(dup3(readOnly, file, O_CLOEXEC));
  close(readOnly);
  capture.add(FRAME);
  capture.add(FRAME);
  EXPECT_EQ(contentOf(file).size(), 24 + 116);
}

TEST(Capture, AFileThatTakesNothingIsRefused) {
  int fd;
  KJ_SYSCALL(fd = open("/dev/full", O_WRONLY | O_CLOEXEC));
  kj::AutoCloseFd full(fd);
  EXPECT_ANY_THROW(Capture(full, 1000, 65535));
}

TEST(Capture, ASuccessorGoesOnBehindTheLastWholeFrame) {
  auto file = makeFile();
  uint64_t end = 0;
  {
    Capture capture(file, 1 << 20, 65535, 0, end);
    capture.add(FRAME);
  }
  EXPECT_EQ(end, 24 + 116);
  KJ_SYSCALL(write(file, "half of a record", 16));
  Capture capture(file, 1 << 20, 65535, 24 + 116 + 16, end);
  capture.add(FRAME);
  auto bytes = contentOf(file);
  EXPECT_EQ(bytes.size(), 24 + 2 * 116);
  EXPECT_EQ(wordAt(bytes, 24 + 116 + 8), sizeof(FRAME));
  EXPECT_EQ(end, 24 + 2 * 116);
}

TEST(Capture, AnEndThatCannotBeIsRefused) {
  for (uint64_t left : {uint64_t(1), uint64_t(23), uint64_t(24 + 116 + 1), UINT64_MAX}) {
    auto file = makeFile();
    Capture(file, 1 << 20, 65535).add(FRAME);
    uint64_t end = left;
    EXPECT_ANY_THROW(Capture(file, 1 << 20, 65535, 24 + 116, end)) << left;
    EXPECT_EQ(contentOf(file).size(), 24 + 116);
  }
}

TEST(Capture, RecordsOfTwoThreadsDoNotMix) {
  auto file = makeFile();
  Capture capture(file, 1 << 20, 65535);
  auto addMany = [&](kj::byte value) {
    kj::byte frame[77];
    memset(frame, value, sizeof(frame));
    for (int i = 0; i < 1000; i++)
      capture.add(frame);
  };
  std::thread other([&] { addMany(1); });
  addMany(2);
  other.join();
  auto bytes = contentOf(file);
  ASSERT_EQ(bytes.size(), 24 + 2000 * (16 + 77));
  for (size_t i = 24; i < bytes.size(); i += 16 + 77) {
    ASSERT_EQ(wordAt(bytes, i + 8), 77);
    for (size_t j = 0; j < 77; j++)
      ASSERT_EQ(bytes[i + 16 + j], bytes[i + 16]);
  }
}

}  // namespace
}  // namespace troupe::net
