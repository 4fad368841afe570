#pragma once

#include <kj/common.h>
#include <liburing.h>
#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "devices/blk/fuzz_request.h"

// The kernel, as the fuzz target of blk has it: a disk's file, the memory of a volatile disk, and
// the system calls and the io_uring that the device uses on them, which the linker puts in the
// place of the real ones.
namespace troupe::blk::fuzzing {

constexpr uint64_t DISK_BYTES = FUZZED_DISK_BYTES;
constexpr uint64_t PAGE = 4096;

// What the disk holds at first: no two sectors the same.
kj::byte firstContent(uint64_t offset);

// Bytes that are as they were at first after each reset(), at the cost of what was touched.
class FakeFile {
 public:
  explicit FakeFile(bool isDisk);

  // As far as `pieces` go, at most `most` bytes.
  uint64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset, uint64_t most);
  uint64_t write(kj::ArrayPtr<const iovec> pieces, uint64_t offset, uint64_t most);
  void clear(uint64_t offset, uint64_t bytes);
  // Of a memfd: how many pages have memory.
  size_t pagesHeld() const;
  void reset();

  const bool isDisk;
  bool isReadOnly = false;

 private:
  void touch(uint64_t offset, uint64_t size);

  kj::byte first[DISK_BYTES];
  kj::byte bytes[DISK_BYTES];
  bool held[DISK_BYTES / PAGE] = {};
  uint64_t dirtyBegin = DISK_BYTES;
  uint64_t dirtyEnd = 0;
};

class FakeKernel {
 public:
  // What the next calls get.
  enum class Mood : uint8_t {
    WELL,
    SHORT,  // fewer bytes than asked for
    IO_ERROR,
    NO_SPACE,
    WOULD_WAIT,   // EAGAIN, where the caller said not to wait
    UNSUPPORTED,  // EOPNOTSUPP, where there is another way
    END,          // as if the file ended here
  };
  static constexpr uint8_t MOODS = 7;
  void setMood(Mood newMood, uint32_t calls, uint32_t newMost);

  // Ends up to `count` requests of the background, the `first`-th of those under way first.
  void complete(size_t count, size_t first);
  size_t underWay() const { return background.size(); }
  // Whether submitted requests end at once.
  void setPrompt(bool prompt) { isPrompt = prompt; }

  // The device's disk may not be written now.
  void setReadOnly(bool readOnly) { disk.isReadOnly = readOnly; }
  // Whether it was ever unlike a usual one since reset().
  bool wasOdd() const { return isOdd; }
  // How often it was not well.
  uint64_t moodsTaken() const { return moodCount; }
  void reset();

  // The system calls: a count or -errno.
  int64_t read(FakeFile& file, kj::ArrayPtr<const iovec> pieces, uint64_t offset, bool mayWait);
  int64_t write(FakeFile& file, kj::ArrayPtr<const iovec> pieces, uint64_t offset, bool mayWait);
  int64_t allocate(FakeFile& file, int mode, uint64_t offset, uint64_t bytes);
  int64_t sync();

  FakeFile disk{true};
  FakeFile memory{false};  // a volatile disk's

  void submit(io_uring& ring, const io_uring_sqe& entry);

 private:
  struct Request {
    io_uring* ring;
    uint8_t opcode;
    std::vector<iovec> pieces;
    uint64_t offset;
    uint64_t bytes;
    int mode;
    uint64_t token;
  };
  int64_t perform(const Request& request);
  Mood takeMood();

  Mood mood = Mood::WELL;
  uint32_t moodCalls = 0;
  uint32_t most = 0;
  bool isPrompt = true;
  bool isOdd = false;
  uint64_t moodCount = 0;
  std::vector<Request> background;
};

FakeKernel& kernel();

// The fds of the file; what fcntl() and fstatfs() say of them makes a disk of each kind.
int fileInMemory();
int fileInCache();
int fileDirect();
int volatileMemory();

}  // namespace troupe::blk::fuzzing
