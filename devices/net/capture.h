#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <atomic>
#include <cstdint>

namespace troupe::net {

// Writes frames to a file as they pass, in the format of pcap (nanoseconds, Ethernet). It never
// waits and never fails: the file ends where the next frame would make it too long, or the host
// takes no more of it.
//
// Frames may come from any thread.
class Capture {
 public:
  // `fd`: a regular file at its end, borrowed. `maxBytes`: of the whole file. Of each frame at most
  // `frameBytes` are kept.
  Capture(int fd, uint64_t maxBytes, uint32_t frameBytes);
  KJ_DISALLOW_COPY(Capture);

  void add(kj::ArrayPtr<const kj::byte> frame);

  // The smallest `maxBytes`: the file's own header.
  static constexpr uint32_t FILE_HEADER_BYTES = 24;
  static constexpr uint32_t FRAME_HEADER_BYTES = 16;

 private:
  const int fd;
  const uint64_t maxBytes;
  const uint32_t frameBytes;
  const uint64_t clockOffsetNs;  // CLOCK_REALTIME less CLOCK_MONOTONIC
  std::atomic<uint64_t> used;    // of the file, and of what is being written to it
  std::atomic<bool> ended{false};
};

}  // namespace troupe::net
