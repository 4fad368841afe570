#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "devices/net/frame.h"
#include "devices/net/net_wire.h"

// The host, as the fuzz target of net has it: readv(), writev() and ppoll() of its fds, which the
// linker puts in the place of the real ones. It looks at every frame that leaves.
namespace troupe::net::fuzzing {

constexpr int PLAIN_FD = 1000001;   // one frame a message
constexpr int HEADER_FD = 1000002;  // with a virtio header before it
constexpr int STREAM_FD = 1000003;
constexpr int CAPTURE_FD = 1000004;

class FakeHost {
 public:
  // Of the driver that has begun.
  struct Expected {
    uint64_t features;
    bool spoofFilter;
  };
  void begin(const Expected& expected);

  // What the next `calls` calls get.
  enum class Mood : uint8_t { WELL, FULL, PART, REFUSES, ENDS };
  static constexpr uint8_t MOODS = 5;
  void setMood(Mood newMood, uint32_t calls, uint32_t newMost);

  // A frame, or something else, is there to be received.
  void arrive(const virtio::NetHeader& header, size_t bytes, const MacAddress& destination);
  // Bytes of a stream as they are.
  void arriveRaw(kj::ArrayPtr<const kj::byte> bytes);

  ssize_t read(int fd, kj::ArrayPtr<const iovec> pieces);
  ssize_t write(int fd, kj::ArrayPtr<const iovec> pieces);

 private:
  struct Arrived {
    virtio::NetHeader header;
    std::vector<kj::byte> bytes;
  };
  Mood takeMood();
  void lookAtFrame(const virtio::NetHeader& header, kj::ArrayPtr<const kj::byte> frame);
  void lookAtStream(kj::ArrayPtr<const kj::byte> bytes);

  Expected expected{};
  std::vector<Arrived> arrived;
  std::vector<kj::byte> arrivedStream;
  std::vector<kj::byte> sentStream;  // not yet a whole frame
  Mood mood = Mood::WELL;
  uint32_t moodCalls = 0;
  uint32_t most = 0;
};

FakeHost& host();

}  // namespace troupe::net::fuzzing
