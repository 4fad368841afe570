#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/net/frame.h"
#include "devices/net/net_wire.h"
#include "devices/net/spoof_filter.h"
#include "devices/virtio/host_inputs.h"

namespace troupe::net {

// What of a frame stands in private memory: the virtio header, and right behind it as much of the
// frame's beginning as `size` says.
template <size_t size>
struct FrameStart {
  virtio::NetHeader header;
  kj::byte bytes[size];
};

// How much of an outgoing frame is copied: at least what the spoof filter looks at, and all of the
// short ones, which the kernel then takes in one piece.
constexpr size_t OUTGOING_START_BYTES = 128;
static_assert(OUTGOING_START_BYTES >= SPOOF_FILTER_BYTES, "it looks at a copy");

// The most pieces a frame has behind its start: with a length and the start, as many as one system
// call takes (IOV_MAX).
constexpr size_t MAX_REST_PIECES = 1022;

// A frame on its way to the host.
struct OutgoingFrame {
  FrameStart<OUTGOING_START_BYTES> start;
  uint32_t startBytes;             // of start.bytes that are in use
  kj::ArrayPtr<const iovec> rest;  // behind them: at most MAX_REST_PIECES, for system calls
  uint32_t bytes;                  // all together, without the header
};

// Room for a frame from the host: `header`, then the bytes of `pieces`, whose first entry is free
// for the backend's own use. The second is private memory, right behind the header.
struct IncomingRoom {
  virtio::NetHeader& header;
  kj::ArrayPtr<iovec> pieces;
  uint32_t rules = 0;  // which of them it is for, for a recording (SharedRules)
};

// One queue pair's way to the host: frames, without any rule about what is in them. Never waits.
// Belongs to one thread.
class Backend {
 public:
  enum class Outcome {
    DONE,
    LATER,    // there is none to receive; or no room for what is left to send
    DROPPED,  // one that is no frame, or did not fit
    GONE      // the host's end is closed for good
  };

  virtual ~Backend() noexcept(false) = default;

  // For poll(). Not in use once it is GONE.
  virtual int fd() const = 0;

  // How many frames at once send() makes the most of.
  virtual size_t batch() const = 0;

  // Sends frames in the order given, and says how many it is done with. Ones the host refuses are
  // done with; so is one that went in part: the rest of it is kept here, and goes with the next
  // call, one without frames too. LATER: wait for POLLOUT.
  struct Sent {
    Outcome outcome;
    size_t count;
  };
  virtual Sent send(kj::ArrayPtr<const OutgoingFrame> frames) = 0;

  // The next frame's header (zeroes, if the host sends none) and bytes; of a frame that is longer
  // than the room, so much as fits. With DONE `bytes` is its length.
  struct Received {
    Outcome outcome;
    uint32_t bytes;
  };
  virtual Received receive(const IncomingRoom& room) = 0;

  // Whether receive() has frames that poll() does not know of.
  virtual bool hasInput() const = 0;

  // Where what the host does is recorded, or replayed; null when nobody records.
  virtual virtio::HostInputs* inputs() { return nullptr; }
};

}  // namespace troupe::net
