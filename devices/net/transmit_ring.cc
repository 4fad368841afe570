#include "devices/net/transmit_ring.h"

#include <errno.h>
#include <kj/debug.h>

#include <cstddef>
#include <cstring>

#include "devices/net/spoof_filter.h"
#include "devices/virtio/fetch.h"
#include "devices/virtio/queue_flight.h"

namespace troupe::net {
namespace {

// Often enough that a driver gets its buffers back while the rest is sent.
constexpr uint32_t SHOW_AFTER = 16;
// About what it takes to wake a guest up: it is to have more to send before the ring is empty.
constexpr uint64_t INTERRUPT_PAUSE_NS = 20000;
// So many are taken and looked at together, though each may be sent by itself: waiting for the
// memory of one, which the guest's processor had, takes as long as for that of all.
constexpr size_t FRAMES_AHEAD = 8;

}  // namespace

TransmitRing::TransmitRing(virtio::Virtqueue& ring, int call, Backend& backend,
                           const NetSettings& settings, const Offloads& allowed)
    : ring(ring),
      notice(ring, call, SHOW_AFTER, INTERRUPT_PAUSE_NS),
      backend(backend),
      settings(settings),
      allowed(allowed),
      frames(kj::heapArray<OutgoingFrame>(kj::max(backend.batch(), FRAMES_AHEAD))),
      chains(kj::heapArray<kj::Maybe<virtio::Chain>>(frames.size())),
      whole(kj::heapArray<kj::byte>(MAX_FRAME_BYTES)) {}

Backend::Outcome TransmitRing::turn() {
  // What is left of an earlier frame goes first, whether or not there is another.
  auto outcome = backend.send(nullptr).outcome;
  uint32_t left = ring.size();
  while (outcome == Backend::Outcome::DONE) {
    if (first == count) {
      uint32_t taken = fill(left);
      if (taken == 0) break;
      left -= taken;
      if (count == 0) continue;  // none of them is to be sent
    }
    auto sent = backend.send(frames.slice(first, kj::min(first + backend.batch(), count)));
    if (settings.capture != nullptr && sent.count > 0) {
      settings.capture->add(whole.slice(0, frames[first].bytes));
    }
    if (ring.flight() != nullptr) {
      for (size_t i = first; i < first + sent.count; i++)
        record(KJ_ASSERT_NONNULL(chains[i]), frames[i]);
    }
    finish(sent.count);
    outcome = sent.outcome;
  }
  notice.tellAll();
  return outcome;
}

void TransmitRing::drop() {
  for (size_t i = first; i < count; i++)
    recordDrop(KJ_ASSERT_NONNULL(chains[i]));
  finish(count - first);
  for (uint32_t i = 0; i < ring.size(); i++) {
    KJ_IF_MAYBE (chain, ring.pop()) {
      recordDrop(*chain);
      giveBack(kj::mv(*chain));
    } else {
      break;
    }
  }
  notice.tellAll();
}

// Takes at most `most` chains, and has those that may go ready to be sent; returns how many it
// took.
uint32_t TransmitRing::fill(uint32_t most) {
  first = count = 0;
  uint32_t took = take(most);
  size_t held = count;
  count = 0;
  for (size_t i = 0; i < held; i++) {
    auto& chain = KJ_ASSERT_NONNULL(chains[i]);
    OutgoingFrame& frame = frames[count];
    if (!prepare(chain, frame)) {
      ring.countError();
      giveBack(kj::mv(chain));
      chains[i] = nullptr;
      continue;
    }
    // There is room for one such frame, and it is the last.
    if (isCopiedWhole(frame.rest)) copyWhole(chain, frame);
    if (!settings.transmitLimit.unlimited()) {
      settings.transmitLimit.take(frame.bytes, virtio::monotonicNs());
    }
    if (count != i) {
      chains[count] = kj::mv(chain);
      chains[i] = nullptr;
    }
    ++count;
  }
  return took;
}

// Takes chains until there are as many as are prepared together: by then the processor has fetched
// what is looked at in the first. Returns how many it took; `count` of them are in `chains`.
uint32_t TransmitRing::take(uint32_t most) {
  // What is recorded is taken as it is sent: a replay is given the frames one by one.
  size_t limit = ring.flight() != nullptr ? backend.batch() : chains.size();
  if (settings.capture != nullptr || !settings.transmitLimit.unlimited()) limit = 1;
  uint32_t took = 0;
  for (bool isLast = false; !isLast && count < limit && took < most && throttledNs() == 0;) {
    KJ_IF_MAYBE (chain, ring.pop()) {
      ++took;
      if (wasDropped(*chain)) {
        recordDrop(*chain);
        giveBack(kj::mv(*chain));
        continue;
      }
      virtio::fetch(chain->readable(), virtio::Purpose::TO_READ);
      isLast = isCopiedWhole(chain->readable());
      chains[count++] = kj::mv(*chain);
    } else {
      break;
    }
  }
  return took;
}

// Of so many pieces, or since a capture is to show what was sent and nothing else.
bool TransmitRing::isCopiedWhole(kj::ArrayPtr<const iovec> rest) const {
  return settings.capture != nullptr || rest.size() > MAX_REST_PIECES;
}

// Whether `chain` is a frame that may go. The guest may change its memory at any time: what is
// checked here is what is sent.
bool TransmitRing::prepare(virtio::Chain& chain, OutgoingFrame& frame) {
  // What processes keep dying of is not looked at.
  if (chain.isDeadly()) return false;
  constexpr uint64_t HEADER_BYTES = sizeof(frame.start.header);
  if (chain.readableBytes() < HEADER_BYTES) return false;
  uint64_t bytes = chain.readableBytes() - HEADER_BYTES;
  if (bytes < ETHERNET_HEADER_BYTES || bytes > MAX_FRAME_BYTES) return false;
  frame.bytes = bytes;
  frame.startBytes = kj::min(frame.bytes, OUTGOING_START_BYTES);
  auto start = kj::arrayPtr(frame.start.bytes, frame.startBytes);
  static_assert(offsetof(decltype(frame.start), bytes) == HEADER_BYTES, "copied as one");
  chain.readBytes(
      kj::arrayPtr(reinterpret_cast<kj::byte*>(&frame.start), HEADER_BYTES + frame.startBytes));
  frame.rest = chain.readable();

  auto& header = frame.start.header;
  header.bufferCount = 0;
  if (!settle(header, frame.bytes, allowed, Direction::TO_HOST)) return false;
  if (!settings.spoofFilter) return true;
  return isGenuine(start, settings.mac) && (header.flags == 0 || !isArp(start));
}

void TransmitRing::copyWhole(virtio::Chain& chain, OutgoingFrame& frame) {
  memcpy(whole.begin(), frame.start.bytes, frame.startBytes);
  auto rest = whole.slice(frame.startBytes, frame.bytes);
  chain.readBytes(rest);
  wholeRest = iovec{rest.begin(), rest.size()};
  frame.rest = kj::arrayPtr(&wholeRest, rest.size() > 0 ? 1 : 0);
}

// The first `sent` of the frames that wait are done with.
void TransmitRing::finish(size_t sent) {
  for (size_t i = 0; i < sent; i++, first++) {
    giveBack(kj::mv(KJ_ASSERT_NONNULL(chains[first])));
    chains[first] = nullptr;
  }
}

// For the flight recorder: a frame that the host is done with, and one that it was not given since
// the link was down or its end was gone, which a replay is not to find out by itself.
void TransmitRing::record(const virtio::Chain& chain, const OutgoingFrame& frame) {
  size_t startBytes = sizeof(frame.start.header) + frame.startBytes;
  uint64_t bytes = sizeof(frame.start.header) + frame.bytes;
  auto pieces = kj::heapArrayBuilder<iovec>(1 + frame.rest.size());
  auto start = const_cast<FrameStart<OUTGOING_START_BYTES>*>(&frame.start);
  pieces.add(iovec{start, startBytes});
  pieces.addAll(frame.rest);
  virtio::QueueFlight::Call call{HostCall::Kind::OUTPUT, 0, bytes};
  call.outgoing = pieces;
  ring.flight()->called(chain.head(), call, int64_t(bytes));
}

void TransmitRing::recordDrop(const virtio::Chain& chain) {
  if (ring.flight() == nullptr) return;
  ring.flight()->called(chain.head(), {HostCall::Kind::OUTPUT}, -ENETDOWN);
}

bool TransmitRing::wasDropped(const virtio::Chain& chain) const {
  return ring.flight() != nullptr && ring.flight()->isReplaying() &&
         ring.flight()->answer(chain.head()).result == -ENETDOWN;
}

void TransmitRing::giveBack(virtio::Chain&& chain) {
  ring.push(kj::mv(chain), 0);
  notice.pushed();
}

}  // namespace troupe::net
