#include "devices/net/receive_ring.h"

#include <kj/debug.h>

#include <cstring>

#include "devices/virtio/fetch.h"
#include "devices/virtio/guest_memory.h"
#include "tests/fuzz/planted.h"

namespace troupe::net {
namespace {

// Work between two looks at the other queue, and at what the main thread wants.
constexpr uint32_t FRAMES_PER_TURN = 64;

// The driver sees frames in groups of this size: soon enough to work on them while we go on.
constexpr uint32_t SHOW_AFTER = 8;
// It has a ring full of buffers, so nothing waits for it; and after each turn it is told anyway.
constexpr uint64_t INTERRUPT_PAUSE_NS = 80000;

// Room the driver has to have for a frame that is expected to be none of the large ones: one
// buffer, mostly.
constexpr uint64_t SMALL_ROOM = 2048;
// After a frame that needed more, so many are expected to be as large.
constexpr uint32_t LARGE_FRAMES = 256;

// Buffers are taken in groups before they are needed, so that the processor has their memory by
// then: the guest's had it.
constexpr size_t BUFFERS_AHEAD = 16;

// How long a frame waits for buffers it needs beside those the driver has.
constexpr uint64_t PATIENCE_NS = 100 * 1000000;

constexpr size_t HEADER_BYTES = sizeof(virtio::NetHeader);
// What of a large frame, too, is received into private memory first: header and Ethernet header,
// which are looked at.
constexpr size_t START_BYTES = 256;
static_assert(START_BYTES >= HEADER_BYTES + ETHERNET_HEADER_BYTES, "what is looked at");

// One byte more than the longest frame: whatever fills it was longer.
constexpr size_t PRIVATE_BYTES = HEADER_BYTES + MAX_FRAME_BYTES + 1;

}  // namespace

ReceiveRing::ReceiveRing(virtio::Virtqueue& ring, int call, Backend& backend,
                         const NetSettings& settings, bool mergeable)
    : ring(ring),
      notice(ring, call, SHOW_AFTER, INTERRUPT_PAUSE_NS),
      backend(backend),
      settings(settings),
      mergeable(mergeable),
      chains(kj::heapArray<kj::Maybe<virtio::Chain>>(ring.size())),
      frame(kj::heapArray<kj::byte>(PRIVATE_BYTES)) {}

ReceiveRing::State ReceiveRing::turn(const NetRules& rules, uint32_t version) {
  State state = State::MORE;
  popsLeft = ring.size();
  for (uint32_t i = 0; i < FRAMES_PER_TURN && state == State::MORE; i++)
    state = takeOne(rules, version);
  notice.tellAll();
  return state;
}

ReceiveRing::State ReceiveRing::takeOne(const NetRules& rules, uint32_t version) {
  if (frameBytes == 0) {
    kj::Maybe<State> none = receive(rules, version);
    KJ_IF_MAYBE (state, none) {
      return *state;
    }
  }
  return deliver();
}

// Has the next frame in hand when it returns none.
kj::Maybe<ReceiveRing::State> ReceiveRing::receive(const NetRules& rules, uint32_t version) {
  if (throttledNs() > 0) return State::THROTTLED;
  // A replay has only buffers in the ring that were taken.
  if (rules.linkUp || isReplayed()) {
    gather(!mergeable ? 1 : largeFramesToCome > 0 ? HEADER_BYTES + MAX_FRAME_BYTES : SMALL_ROOM);
  }
  if (rules.linkUp && (chainCount == 0 || tooSmall)) return withoutBuffers();
  listedBytes = 0;
  bool direct = rules.linkUp && settings.capture == nullptr && largeFramesToCome > 0;
  size_t listed = 1;
  if (direct) {
    pieces[1] = iovec{frame.begin() + HEADER_BYTES, START_BYTES - HEADER_BYTES};
    listed = listRoom();
    pieces[listed] = iovec{frame.begin() + START_BYTES, frame.size() - START_BYTES};
  } else {
    pieces[1] = iovec{frame.begin() + HEADER_BYTES, frame.size() - HEADER_BYTES};
  }
  auto& header = *reinterpret_cast<virtio::NetHeader*>(frame.begin());
  auto received = backend.receive({header, kj::arrayPtr(pieces, listed + 1), version});
  switch (received.outcome) {
    case Backend::Outcome::LATER:
      return State::NO_INPUT;
    case Backend::Outcome::GONE:
      return State::GONE;
    case Backend::Outcome::DROPPED:
      ++frameCount;
      return State::MORE;
    case Backend::Outcome::DONE:
      break;
  }
  ++frameCount;
  if (!isWanted(rules, received.bytes)) return State::MORE;
  frameBytes = received.bytes;
  return nullptr;
}

// The pieces of the room behind START_BYTES, from the third on, as many as there may be. Returns
// the index behind the last.
size_t ReceiveRing::listRoom() {
  size_t next = 2;
  forRoom(mergeable ? chainCount : 1, START_BYTES, [&](kj::byte* bytes, size_t size) {
    if (next == kj::size(pieces) - 1) return false;
    pieces[next++] = iovec{bytes, size};
    listedBytes += size;
    return true;
  });
  return next;
}

bool ReceiveRing::isWanted(const NetRules& rules, uint32_t bytes) {
  if (bytes < ETHERNET_HEADER_BYTES || bytes > MAX_FRAME_BYTES || !rules.linkUp) return false;
  MacAddress destination;
  memcpy(destination.bytes, frame.begin() + HEADER_BYTES, sizeof(destination.bytes));
  auto& header = *reinterpret_cast<virtio::NetHeader*>(frame.begin());
  return rules.filter.accepts(destination) &&
         settle(header, bytes, rules.toGuest, Direction::TO_GUEST);
}

// Gives the frame in hand to the driver, or keeps it until there is room. What no buffers of the
// driver's can hold is dropped.
ReceiveRing::State ReceiveRing::deliver() {
  uint64_t bytes = HEADER_BYTES + frameBytes;
  if (mergeable) {
    gather(bytes);
    if (tooSmall || ring.broken()) return State::BROKEN;
    if (roomBytes < bytes && mayWait()) return State::NO_BUFFERS;
  }
  uint64_t room = mergeable ? roomBytes : held(0).writableBytes();
  waitingSince = 0;
  if (room < bytes) {
    ring.countError();
    frameBytes = 0;
    return State::MORE;
  }

  uint16_t buffers = mergeable ? buffersFor(bytes) : 1;
  auto& header = *reinterpret_cast<virtio::NetHeader*>(frame.begin());
  header.bufferCount = buffers;
  copyTo(0, frame.slice(0, listedBytes == 0 ? bytes : kj::min(bytes, START_BYTES)));
  uint64_t inPlace = START_BYTES + listedBytes;
  if (listedBytes > 0 && bytes > inPlace) {
    copyTo(inPlace, frame.slice(START_BYTES, START_BYTES + bytes - inPlace));
  }
  if (settings.capture != nullptr) settings.capture->add(frame.slice(HEADER_BYTES, bytes));
  if (!settings.receiveLimit.unlimited()) {
    settings.receiveLimit.take(frameBytes, virtio::monotonicNs());
  }
  if (bytes > SMALL_ROOM) {
    largeFramesToCome = LARGE_FRAMES;
  } else if (largeFramesToCome > 0) {
    --largeFramesToCome;
  }
  giveBack(bytes, buffers);
  frameBytes = 0;
  return State::MORE;
}

// Whether the driver may still add the buffers that the frame in hand needs. It has a while: one
// that never has so many shall not keep all later frames waiting.
bool ReceiveRing::mayWait() {
  if (chainCount == chains.size()) return false;
  if (isReplayed()) return waitsAgain();
  uint64_t now = virtio::monotonicNs();
  if (waitingSince == 0) waitingSince = now;
  bool waits = now - waitingSince < PATIENCE_NS;
  if (!waits && backend.inputs() != nullptr) {
    backend.inputs()->called({HostCall::Kind::GAVE_UP}, 0);
  }
  return waits;
}

// In a replay: as long as it did.
bool ReceiveRing::waitsAgain() {
  return !backend.inputs()->takeArrived(HostCall::Kind::GAVE_UP);
}

uint64_t ReceiveRing::patienceNs() const {
  if (waitingSince == 0) return 0;
  uint64_t waited = virtio::monotonicNs() - waitingSince;
  return waited < PATIENCE_NS ? PATIENCE_NS - waited : 1;
}

// Takes buffers of the driver's until there is room for `bytes` and for the frames behind it, or no
// more of them; in one turn not more than the ring holds, however fast it is filled.
void ReceiveRing::gather(uint64_t bytes) {
  // A replay is given the buffers one by one that were taken, and takes none before it needs it.
  size_t ahead = ring.flight() != nullptr ? 0 : BUFFERS_AHEAD;
  auto isEnough = [&] { return roomBytes >= bytes && chainCount >= ahead; };
  if (roomBytes >= bytes && chainCount > ahead / 2) return;
  while (!isEnough() && chainCount < chains.size() && !tooSmall && popsLeft > 0 && ring.hasWork()) {
    KJ_IF_MAYBE (chain, ring.pop()) {
      --popsLeft;
      if (chain->isDeadly()) {
        // A buffer that processes keep dying over: it goes back with nothing in it.
        ring.countError();
        ring.push(kj::mv(*chain), 0);
        notice.pushed();
        continue;
      }
      virtio::fetch(chain->writable(), virtio::Purpose::TO_WRITE);
      roomBytes += chain->writableBytes();
      tooSmall = chain->writableBytes() < HEADER_BYTES;
      chains[place(chainCount++)] = kj::mv(*chain);
    } else {
      return;
    }
  }
}

// Calls visit(bytes, size) for the room of the first `count` buffers without its first `skipped`
// bytes, piece by piece, until it returns false.
template <typename Visit>
void ReceiveRing::forRoom(size_t count, uint64_t skipped, Visit&& visit) {
  for (size_t i = 0; i < count; i++) {
    for (const iovec& piece : held(i).writable()) {
      uint64_t skip = kj::min(skipped, uint64_t(piece.iov_len));
      skipped -= skip;
      if (skip == piece.iov_len) continue;
      if (!visit(static_cast<kj::byte*>(piece.iov_base) + skip, piece.iov_len - skip)) return;
    }
  }
}

// Stores `bytes` at this offset of the room.
void ReceiveRing::copyTo(uint64_t offset, kj::ArrayPtr<const kj::byte> bytes) {
  forRoom(chainCount, offset, [&](kj::byte* room, size_t size) {
    size_t part = kj::min(size, bytes.size());
    virtio::copyIn(room, bytes.slice(0, part));
    bytes = bytes.slice(part, bytes.size());
    return bytes.size() > 0;
  });
}

// How many of the buffers a frame of so many bytes fills.
uint16_t ReceiveRing::buffersFor(uint64_t bytes) const {
  uint16_t count = 0;
  for (uint64_t room = 0; room < bytes; count++)
    room += held(count).writableBytes();
  return count;
}

void ReceiveRing::giveBack(uint64_t bytes, uint16_t buffers) {
  for (uint16_t i = 0; i < buffers; i++) {
    auto& chain = held(0);
    uint64_t room = chain.writableBytes();
    uint64_t part = fuzz::isPlanted(fuzz::Bug::RECEIVED_LENGTH) ? room : kj::min(room, bytes);
    bytes -= kj::min(part, bytes);
    roomBytes -= room;
    ring.push(kj::mv(chain), part);
    chains[firstChain] = nullptr;
    firstChain = place(1);
    --chainCount;
  }
  notice.pushed();
}

}  // namespace troupe::net
