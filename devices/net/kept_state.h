#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

#include "devices/net/frame.h"
#include "devices/net/receive_filter.h"

namespace troupe::net {

// What a driver has told the device by its control queue (§5.1.6.5), and was told that it holds.
struct DriverSaid {
  uint16_t pairs = 1;     // that it uses
  uint64_t offloads = 0;  // GUEST_… bits (§5.1.6.5.6)
  MacAddress mac{};
  ReceiveFilter::Wishes filter;
};

// Keeps the last word of the driver in memory that outlives this process. There are two places for
// it, and one word says which of them counts: a process that dies between any two stores leaves the
// one before or the one after.
class KeptState {
 public:
  static constexpr uint64_t BYTES = 4096;

  // `memory`: BYTES of it, aligned to 8: zero, or written by another KeptState.
  explicit KeptState(kj::ArrayPtr<kj::byte> memory);

  void note(const DriverSaid& said);

  // A driver begins anew, and has said nothing.
  void forget();

  // What was noted last. Whoever noted it may have been hostile: what comes back is sound in
  // itself, and still to be held against what the driver may say. None for one that is not;
  // `initial` when nothing was noted.
  kj::Maybe<DriverSaid> recall(const DriverSaid& initial) const;

 private:
  struct Record;
  kj::byte* place(uint64_t number) const;

  kj::byte* const memory;
};

}  // namespace troupe::net
