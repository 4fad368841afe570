#pragma once

#include <kj/string.h>

#include <cstring>
#include <vector>

#include "protos/recording.capnp.h"
#include "tests/fuzz/op.h"

// How what a recorded device was asked for is said to the fuzz target of its kind: in operations
// whose sizes and places are the target's own.
namespace troupe::fuzz {

using Ops = std::vector<Op>;

Op make(OpKind kind, uint8_t a = 0, uint16_t b = 0, uint32_t c = 0, uint64_t d = 0);

// What a chain offers, by its descriptors.
struct Shape {
  explicit Shape(TakenChain::Reader chain);
  bool indirect = false;
  uint64_t readable = 0, writable = 0;
  uint32_t readablePieces = 0, writablePieces = 0;
};

// How the driver had set the device up when it took a chain.
struct SeenDriver {
  uint64_t features = 0;
  uint32_t enabled = 0;  // a bit for each queue
  uint16_t queues = 0;   // that the device has
};

struct SeedKind {
  kj::StringPtr name;
  // The target's queue for this one of the device's; none if it has no such queue.
  kj::Maybe<uint8_t> (*queueOf)(uint16_t index, const SeenDriver& driver);
  // Adds a REQUEST, or nothing for a chain that is none.
  void (*request)(TakenChain::Reader chain, const Shape& shape, uint8_t queue, Ops& ops);
  // Adds what the host does for this call to come about.
  void (*hostCall)(HostCall::Reader call, Ops& ops);
};

// None for a kind whose recordings say nothing to a fuzz target.
kj::Maybe<const SeedKind&> seedKind(kj::StringPtr name);

// Of devices whose rings are all there is to them, and of those that have a host behind them.
extern const SeedKind BLK_SEEDS, RNG_SEEDS, CONSOLE_SEEDS;
extern const SeedKind NET_SEEDS, VSOCK_SEEDS, BALLOON_SEEDS;

// Parts of the above.
uint16_t pieces(uint32_t count);
kj::Maybe<uint8_t> sameQueue(uint16_t index, const SeenDriver& driver);

template <typename T>
bool read(TakenChain::Reader chain, size_t offset, T& value) {
  auto bytes = chain.getReadable();
  if (bytes.size() < offset + sizeof(value)) return false;
  memcpy(&value, bytes.begin() + offset, sizeof(value));
  return true;
}

}  // namespace troupe::fuzz
