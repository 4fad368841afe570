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
  // `fd`: an empty regular file, borrowed. `maxBytes`: of the whole file. Of each frame at most
  // `frameBytes` are kept.
  Capture(int fd, uint64_t maxBytes, uint32_t frameBytes);

  // The same for a file at its end, with `found` bytes in it: none, or what a process before this
  // one has written. `end` outlives the process and tells a successor where the last whole frame
  // ends: zero, or another Capture's of this file, which may have been hostile. What is behind that
  // goes.
  Capture(int fd, uint64_t maxBytes, uint32_t frameBytes, uint64_t found, uint64_t& end);

  // The same for a file that a process before this one still writes: nothing is until takeOver().
  Capture(int fd, uint64_t maxBytes, uint32_t frameBytes, uint64_t& end);
  KJ_DISALLOW_COPY(Capture);

  // That process has ended. Does nothing for one that began by itself.
  void takeOver();

  void add(kj::ArrayPtr<const kj::byte> frame);

  // The smallest `maxBytes`: the file's own header.
  static constexpr uint32_t FILE_HEADER_BYTES = 24;
  static constexpr uint32_t FRAME_HEADER_BYTES = 16;

 private:
  void begin();
  void goOn(uint64_t found);
  void cut(uint64_t size);
  bool write(kj::ArrayPtr<const iovec> pieces, size_t size);

  const int fd;
  bool isAnothers = false;
  const uint64_t maxBytes;
  const uint32_t frameBytes;
  const uint64_t clockOffsetNs;  // CLOCK_REALTIME less CLOCK_MONOTONIC
  std::atomic<uint64_t> used;    // of the file, and of what is being written to it
  std::atomic<bool> ended;
  std::mutex mutex;  // of two threads' records one is whole and noted before the other
  uint64_t* end;     // of the last whole frame, for a successor; null: there is none
};

}  // namespace troupe::net
