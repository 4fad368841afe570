#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/map.h>
#include <kj/vector.h>

#include <cstdint>

#include "devices/vsock/stream.h"

namespace troupe::vsock {

// As many streams as there are, whoever began them: each has a number for its socket in the
// process's profile.
constexpr uint16_t MOST_STREAMS = 3840;

// So many at once have room for a fast transfer each, those beyond for a slow one: what a guest and
// readers that never read can make us and the kernel keep stays within the profile's memory_max
// (vsock.profile).
constexpr uint16_t ROOMY_STREAMS = 64;

// All streams of one device. A stream has a slot for its life, and while the guest knows of it a
// name by which packets find it.
class StreamTable {
 public:
  // The first `roomy` at a time get much memory, the others little.
  StreamTable(uint16_t slots, uint16_t roomy);
  KJ_DISALLOW_COPY(StreamTable);

  bool full() const { return unused.size() == 0; }
  size_t inUse() const { return streams.size() - unused.size(); }
  uint16_t slots() const { return uint16_t(streams.size()); }

  // A new stream with its share of memory, in `state`. The table is not full.
  Stream& add(Stream::State state);
  // Closes what it holds.
  void remove(Stream& stream);

  // Gives it the name by which find() knows it, or takes it away.
  void bind(Stream& stream, const StreamKey& key);
  void unbind(Stream& stream);
  Stream* find(const StreamKey& key);

  Stream& at(uint16_t slot) { return streams[slot]; }

 private:
  const uint16_t roomy;
  kj::Array<Stream> streams;
  kj::Vector<uint16_t> unused;
  // A tree: a guest that chooses ports to fall on each other gains nothing.
  kj::TreeMap<StreamKey, uint16_t> names;
};

}  // namespace troupe::vsock
