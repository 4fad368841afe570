#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <sys/uio.h>

#include <cstdint>

#include "devices/virtio/flight_log.h"

namespace troupe::virtio {

// What one source of a device's host does, and is asked for, beside the chains of a queue: frames
// that come, sockets that have news, the broker's answers. Recorded in the order in which the
// device meets it, and in a replay given out in that order. Belongs to one thread.
class HostInputs {
 public:
  // `source`: tells the sources of a device apart. `log` outlives this.
  HostInputs(FlightLog& log, uint16_t source) : log(log), source(source) {}
  KJ_DISALLOW_COPY(HostInputs);

  struct Call {
    HostCall::Kind kind;
    uint64_t offset = 0;
    uint64_t bytes = 0;
    uint64_t sum = 0;                              // of what went to the host (sumOf())
    kj::ArrayPtr<const iovec> incoming = nullptr;  // `result` bytes of it came
  };
  // It is over, in a replay too.
  void called(const Call& call, int64_t result);

  // Of a device that is replayed: what comes next. arrived(): if it is the host's time to do it;
  // said(): the answer to what the device asks for now. Both stay until called().
  bool isReplaying() const { return log.isReplaying(); }
  kj::Maybe<HostAnswer> arrived() const { return next(FlightLog::When::REACHED); }
  kj::Maybe<HostAnswer> said() const { return next(FlightLog::When::ANY); }

  // Of what the host does of itself: it arrives, and nothing else has to be known of it.
  bool takeArrived(HostCall::Kind kind);
  // What the host says to a call of this kind; EPROTO if it was not asked for that then.
  HostAnswer answer(HostCall::Kind kind) const;

 private:
  kj::Maybe<HostAnswer> next(FlightLog::When when) const {
    return log.answerTo(source, BESIDE_CHAINS, calls, when);
  }

  // Chains count from 1 on.
  static constexpr uint64_t BESIDE_CHAINS = 0;

  FlightLog& log;
  const uint16_t source;
  uint32_t calls = 0;
};

// Stores `bytes` into `pieces`, which may be guest memory, as far as there is room.
size_t copyTo(kj::ArrayPtr<const iovec> pieces, kj::ArrayPtr<const kj::byte> bytes);

}  // namespace troupe::virtio
