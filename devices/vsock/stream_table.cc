#include "devices/vsock/stream_table.h"

#include <kj/debug.h>

namespace troupe::vsock {

namespace {

// How much a stream may make us keep.
struct Share {
  uint32_t credit;      // bytes the guest may have sent that its reader has not taken
  bool littleInKernel;  // the socket's own buffer is cut down as well
};

constexpr Share ROOMY = {256 << 10, false};  // what Linux gives
constexpr Share SMALL = {16 << 10, true};

}  // namespace

StreamTable::StreamTable(uint16_t slots, uint16_t roomy)
    : roomy(roomy), streams(kj::heapArray<Stream>(slots)) {
  unused.reserve(slots);
  for (uint16_t slot = slots; slot > 0; slot--)
    unused.add(uint16_t(slot - 1));
}

Stream& StreamTable::add(Stream::State state) {
  auto share = inUse() < roomy ? ROOMY : SMALL;
  uint16_t slot = unused.back();
  unused.removeLast();
  Stream& stream = streams[slot];
  stream = Stream();
  stream.slot = slot;
  stream.state = state;
  stream.littleInKernel = share.littleInKernel;
  stream.grant(share.credit);
  return stream;
}

void StreamTable::remove(Stream& stream) {
  KJ_REQUIRE(stream.state != Stream::State::FREE, "removed twice", stream.slot);
  unbind(stream);
  uint16_t slot = stream.slot;
  stream = Stream();
  stream.slot = slot;
  unused.add(slot);
}

void StreamTable::bind(Stream& stream, const StreamKey& key) {
  stream.key = key;
  names.insert(key, stream.slot);
  stream.named = true;
}

void StreamTable::unbind(Stream& stream) {
  if (!stream.named) return;
  names.erase(stream.key);
  stream.named = false;
}

Stream* StreamTable::find(const StreamKey& key) {
  KJ_IF_MAYBE (slot, names.find(key)) {
    return &streams[*slot];
  }
  return nullptr;
}

}  // namespace troupe::vsock
