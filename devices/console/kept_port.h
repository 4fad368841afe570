#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>

#include "devices/console/input_queue.h"
#include "devices/console/output_log.h"

namespace troupe::console {

// What is kept of a port beside its bytes, a word each: zero at first.
struct KeptPortState {
  uint64_t control = 0;    // PortControl's
  uint64_t size = 0;       // columns and rows, if somebody told the process of them
  uint64_t emergency = 0;  // the last byte of an emergency write
};

// One port in memory that outlives its process. Zeroes, or what a process before this one left,
// which may have been hostile: each reader says what it makes of that.
struct alignas(4096) KeptPort {
  KeptPortState state;
  KeptOutput output;
  KeptInput input;
  alignas(4096) kj::byte typed[InputQueue::CAPACITY];
  kj::byte said[OutputLog::CAPACITY];
};

// Those in `memory`; none where it is too small for so many.
inline kj::ArrayPtr<KeptPort> keptPorts(kj::ArrayPtr<kj::byte> memory, size_t count) {
  if (memory.size() / sizeof(KeptPort) < count) return nullptr;
  return kj::arrayPtr(reinterpret_cast<KeptPort*>(memory.begin()), count);
}

}  // namespace troupe::console
