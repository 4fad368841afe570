#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <mutex>

namespace troupe::net {

// Writes frames to a file as they pass, in the format of pcap (nanoseconds, Ethernet). It never
// waits and never fails: the file ends where the next frame would make it too long, or the host
// takes no more of it.
//
// Frames may come from any thread.
class Capture {
 public:
  // `fd`: a regular file at its end, borrowed, with `found` bytes in it: none, or what a process
  // before this one has written; then keepIn() comes next. `maxBytes`: of the whole file. Of each
  // frame at most `frameBytes` are kept.
  Capture(int fd, uint64_t maxBytes, uint32_t frameBytes, uint64_t found = 0);
  KJ_DISALLOW_COPY(Capture);

  // Has a successor know, by memory that outlives this process, where the last whole frame ends:
  // zero, or another Capture's of this file, which may have been hostile. What is behind that goes.
  // Before the first frame. `place`: aligned to 8, 8 bytes.
  void keepIn(kj::ArrayPtr<kj::byte> place);

  void add(kj::ArrayPtr<const kj::byte> frame);

  // The smallest `maxBytes`: the file's own header.
  static constexpr uint32_t FILE_HEADER_BYTES = 24;
  static constexpr uint32_t FRAME_HEADER_BYTES = 16;

 private:
  void begin();
  void cut(uint64_t size);
  bool write(kj::ArrayPtr<const iovec> pieces, size_t size);

  const int fd;
  const uint64_t found;
  const uint64_t maxBytes;
  const uint32_t frameBytes;
  const uint64_t clockOffsetNs;  // CLOCK_REALTIME less CLOCK_MONOTONIC
  std::atomic<uint64_t> used;    // of the file, and of what is being written to it
  std::atomic<bool> ended;
  std::mutex mutex;         // of two threads' records one is whole and noted before the other
  uint64_t* end = nullptr;  // of the last whole frame, for a successor
};

}  // namespace troupe::net
