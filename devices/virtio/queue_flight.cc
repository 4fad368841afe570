#include "devices/virtio/queue_flight.h"

#include <errno.h>
#include <kj/debug.h>

#include "devices/virtio/guest_memory.h"

namespace troupe::virtio {
namespace {

// Of one chain: what a device is asked for in practice is less, and a driver that describes all of
// RAM many times over is not to fill a recording with it.
constexpr uint64_t MOST_DATA = 4 << 20;
constexpr size_t MOST_DESCRIPTORS = 2048;
constexpr size_t DESCRIPTOR_WORDS = 4;
constexpr size_t TAIL_BYTES = 16;  // a status stands there

size_t wordsFor(uint64_t bytes) {
  return bytes / 8 + 1;
}

}  // namespace

uint64_t sizeOf(kj::ArrayPtr<const iovec> pieces) {
  uint64_t size = 0;
  for (const iovec& piece : pieces)
    size += piece.iov_len;
  return size;
}

void copyFrom(kj::ArrayPtr<const iovec> pieces, uint64_t skip, kj::ArrayPtr<kj::byte> copy) {
  for (const iovec& piece : pieces) {
    if (copy.size() == 0) return;
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    size_t part = kj::min(piece.iov_len - skip, copy.size());
    copyOut(copy.slice(0, part), static_cast<const kj::byte*>(piece.iov_base) + skip);
    copy = copy.slice(part, copy.size());
    skip = 0;
  }
}

uint64_t sumOf(kj::ArrayPtr<const iovec> pieces, uint64_t bytes) {
  uint64_t sum = 0xcbf29ce484222325;
  for (uint64_t done = 0; done < bytes;) {
    kj::byte part[512];
    auto copy = kj::arrayPtr(part, kj::min(bytes - done, sizeof(part)));
    copyFrom(pieces, done, copy);
    for (kj::byte byte : copy)
      sum = (sum ^ byte) * 0x100000001b3;
    done += copy.size();
  }
  return sum;
}

QueueFlight::QueueFlight(FlightLog& log, uint16_t queue, uint16_t size)
    : log(log),
      queue(queue),
      flying(kj::heapArray<Flying>(size)),
      descriptors(kj::heapArray<SeenOne>(MOST_DESCRIPTORS)),
      number(log.chainsOf(queue)) {}

void QueueFlight::descriptor(bool inIndirect, uint32_t index, const Descriptor& descriptor) {
  if (look.descriptors == descriptors.size()) return;
  descriptors[look.descriptors++] = SeenOne{descriptor, index, inIndirect};
}

void QueueFlight::describe(TakenChain::Builder chain) {
  chain.setQueue(queue);
  chain.setNumber(number);
  chain.setLeftBehind(look.leftBehind);
  KJ_IF_MAYBE (head, look.head) {
    chain.setHead(*head);
  } else {
    chain.setIsIndex(true);
  }
  auto list = chain.initDescriptors(look.descriptors);
  for (size_t i = 0; i < list.size(); i++) {
    const SeenOne& one = descriptors[i];
    list[i].setAddress(one.descriptor.address);
    list[i].setLength(one.descriptor.length);
    list[i].setFlags(one.descriptor.flags);
    list[i].setNext(one.descriptor.next);
    list[i].setIndex(one.index);
    list[i].setInIndirect(one.inIndirect);
  }
}

void QueueFlight::taken(kj::ArrayPtr<const iovec> readable, kj::ArrayPtr<const iovec> writable) {
  uint64_t size = sizeOf(readable);
  uint64_t kept = kj::min(size, MOST_DATA);
  Flying& chain = flying[KJ_ASSERT_NONNULL(look.head)];
  chain = Flying{++number, 0, kj::heapArray<iovec>(writable), sizeOf(writable)};
  uint64_t tail = kj::min(chain.writableBytes, TAIL_BYTES);
  log.add(look.descriptors * DESCRIPTOR_WORDS + wordsFor(kept) + wordsFor(tail),
          [&](FlightEvent::Builder event) {
            auto to = event.initTaken();
            describe(to);
            to.setReadableBytes(size);
            copyFrom(readable, 0, to.initReadable(kept));
            copyFrom(writable, chain.writableBytes - tail, to.initTail(tail));
          });
}

void QueueFlight::refused() {
  ++number;
  log.add(look.descriptors * DESCRIPTOR_WORDS, [&](FlightEvent::Builder event) {
    auto to = event.initTaken();
    describe(to);
    to.setRefused(true);
  });
}

void QueueFlight::answered(uint16_t head, uint32_t written) {
  Flying& chain = flying[head];
  uint64_t kept = kj::min(uint64_t(written), MOST_DATA);
  uint64_t tail = kj::min(chain.writableBytes, TAIL_BYTES);
  log.add(wordsFor(kept) + wordsFor(tail), [&](FlightEvent::Builder event) {
    auto to = event.initAnswered();
    to.setQueue(queue);
    to.setNumber(chain.number);
    to.setHead(head);
    to.setWritten(written);
    copyFrom(chain.writable, 0, to.initBytes(kept));
    copyFrom(chain.writable, chain.writableBytes - tail, to.initTail(tail));
  });
  chain.writable = nullptr;
}

void QueueFlight::called(uint16_t head, const Call& call, int64_t result) {
  Flying& chain = flying[head];
  chain.calls++;
  uint64_t sent = kj::min(uint64_t(kj::max(result, int64_t(0))), sizeOf(call.outgoing));
  log.add(0, [&](FlightEvent::Builder event) {
    auto to = event.initCalled();
    to.setQueue(queue);
    to.setNumber(chain.number);
    to.setKind(call.kind);
    to.setOffset(call.offset);
    to.setBytes(call.bytes);
    to.setDurable(call.durable);
    to.setAllocating(call.allocating);
    to.setResult(result);
    if (sent > 0) to.setSum(sumOf(call.outgoing, sent));
  });
}

HostAnswer QueueFlight::answer(uint16_t head) const {
  const Flying& chain = flying[head];
  KJ_IF_MAYBE (answer, log.answerTo(queue, chain.number, chain.calls)) {
    return *answer;
  }
  return HostAnswer{HostCall::Kind::READ, 0, -EPROTO, false, nullptr};
}

}  // namespace troupe::virtio
