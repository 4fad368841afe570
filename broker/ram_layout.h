#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

// Where guest RAM lies: pure arithmetic, for the broker and for whoever checks what a device got.
namespace troupe::broker {

// A piece of guest RAM: `size` bytes of the RAM file from `fileOffset` on, seen by the guest at
// `guestAddress`.
struct RamRegion {
  uint64_t guestAddress;
  uint64_t fileOffset;
  uint64_t size;
};

// The regions of a machine with `bytes` of RAM: one below the hole, a second from 4 GiB on when it
// does not fit there (memory_map.h).
kj::Array<RamRegion> ramRegions(uint64_t bytes);

// Addresses as the guest uses them.
struct RamRange {
  uint64_t guestAddress;
  uint64_t size;
};

constexpr size_t MOST_REGIONS = 32;                // half of what a device maps
constexpr uint64_t LEAST_FIRST_REGION = 2 << 20;   // what a kernel finds beside it lies in there
constexpr uint64_t RAM_LIMIT = uint64_t(1) << 40;  // above all that a host has

constexpr size_t MOST_HOST_REGIONS = 8;  // fds "host_memory" of the broker's profile

// Regions that were placed by somebody, one behind the other in the RAM file. Throws TRP-cfg-105
// unless they are whole pages, in order, do not overlap, begin with 2 MiB at 0 or more, and meet
// neither the hole below 4 GiB nor RAM_LIMIT.
kj::Array<RamRegion> placedRegions(kj::ArrayPtr<const RamRange> ranges);

// The parts of `regions` that `ranges` name, for somebody who gets no others. Throws TRP-cfg-104
// unless there are ranges, of whole pages, in order, that do not overlap, each inside one region.
kj::Array<RamRegion> cutRanges(kj::ArrayPtr<const RamRegion> regions,
                               kj::ArrayPtr<const RamRange> ranges);

}  // namespace troupe::broker
