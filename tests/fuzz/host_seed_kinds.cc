// Devices with a host behind them, whose part a target plays.
#include <algorithm>

#include "devices/balloon/queue_roles.h"
#include "devices/balloon/wire.h"
#include "devices/net/frame.h"
#include "devices/net/fuzz_request.h"
#include "devices/net/net_wire.h"
#include "devices/vsock/fuzz_request.h"
#include "devices/vsock/wire.h"
#include "tests/fuzz/seed_kinds.h"

namespace troupe::fuzz {
namespace {

// Queues of the target of net, which has one pair.
constexpr uint8_t NET_CONTROL = 2;

kj::Maybe<uint8_t> netQueue(uint16_t index, const SeenDriver& driver) {
  if (index + 1 == driver.queues) return NET_CONTROL;
  return uint8_t(index % 2);
}

void netFrame(TakenChain::Reader chain, const Shape& shape, Ops& ops) {
  constexpr uint8_t SOUND_TYPES[] = {0, 0, 1, 4, 3, 5, 0x81, 2};  // in the order of chooseRequest()
  constexpr uint16_t CHECKSUM = 0x301, ARP = 0x400, LONG = 0x2000;
  constexpr uint64_t MADE_BYTES = 42;  // of a frame, by chooseRequest()
  virtio::NetHeader header;
  if (!read(chain, 0, header)) return;
  auto type = std::find(std::begin(SOUND_TYPES), std::end(SOUND_TYPES), header.gsoType);
  uint16_t b = pieces(shape.readablePieces) << 4;
  if (type != std::end(SOUND_TYPES)) b |= (type - std::begin(SOUND_TYPES)) << 1;
  if (header.flags & virtio::NET_HDR_F_NEEDS_CSUM) b |= CHECKSUM;
  uint8_t etherType[2] = {};
  read(chain, sizeof(header) + 12, etherType);
  if (etherType[0] == 8 && etherType[1] == 6) b |= ARP;
  uint64_t made = sizeof(header) + MADE_BYTES;
  uint64_t rest = std::min<uint64_t>(shape.readable - std::min(shape.readable, made), 0x11000);
  if (rest >= 2000) b |= LONG;
  ops.push_back(make(OpKind::REQUEST, 0, b, rest,
                     header.checksumStart | uint64_t(header.gsoSize) << 16 |
                         uint64_t(header.headerBytes & 0x7f) << 32 |
                         uint64_t(header.checksumOffset) << 48));
}

void netCommand(TakenChain::Reader chain, Ops& ops) {
  // In the order of chooseRequest().
  constexpr uint8_t COMMANDS[][2] = {{0, 0}, {0, 1}, {0, 5}, {1, 0},
                                     {1, 1}, {3, 0}, {4, 0}, {5, 0}};
  uint8_t command[2];
  if (!read(chain, 0, command)) return;
  for (uint16_t i = 0; i < std::size(COMMANDS); i++) {
    if (memcmp(COMMANDS[i], command, sizeof(command)) != 0) continue;
    uint64_t data = 0;
    auto bytes = chain.getReadable();
    memcpy(&data, bytes.begin() + 2, std::min<size_t>(bytes.size() - 2, sizeof(data)));
    return ops.push_back(make(OpKind::REQUEST, 3, i, 0, data));
  }
}

void netRequest(TakenChain::Reader chain, const Shape& shape, uint8_t queue, Ops& ops) {
  constexpr uint8_t ROOM = 2;
  constexpr uint16_t ANY_SIZE = 8;
  if (queue == NET_CONTROL) return netCommand(chain, ops);
  if (queue == 1) return netFrame(chain, shape, ops);
  ops.push_back(make(OpKind::REQUEST, ROOM, pieces(shape.writablePieces) << 4 | ANY_SIZE,
                     std::min<uint64_t>(shape.writable, 0x11000)));
}

void netCall(HostCall::Reader call, Ops& ops) {
  constexpr uint8_t ARRIVE = 3;
  constexpr uint16_t ANY_SIZE = 2;
  if (call.getKind() != HostCall::Kind::INPUT) return;
  uint64_t bytes = std::min<uint64_t>(call.getBytes(), 0x11000);
  ops.push_back(make(OpKind::EVENT, ARRIVE, bytes >= 2000 ? ANY_SIZE : 0, bytes));
}

// The choice of chooseRequest() that makes this packet's ports and operation: few ports, the same
// ones for the same ones.
uint16_t vsockChoice(const vsock::PacketHeader& header, bool isClient) {
  constexpr uint16_t SOUND = 15 << 10;
  // Where the operations stand first there, by their numbers.
  constexpr uint8_t PLACES[] = {12, 0, 2, 4, 11, 5, 8, 9};
  constexpr uint16_t PLACE_COUNT = 14;
  uint16_t place = PLACES[header.op < std::size(PLACES) ? header.op : 0];
  uint16_t upper = SOUND | (header.flags & 3) << 8;
  for (uint16_t low = 0; low < 256; low++) {
    uint16_t b = upper | low;
    bool isPort = isClient ? (b >> 2) % 4 == header.destinationPort % 4
                           : (b >> 1) % 3 == header.destinationPort % 3;
    if (isPort && b % 2 == header.sourcePort % 2 && (b >> 4) % PLACE_COUNT == place) return b;
  }
  return upper;
}

void vsockRequest(TakenChain::Reader chain, const Shape& shape, uint8_t queue, Ops& ops) {
  constexpr uint8_t ROOM = 1, FROM_CLIENT = 2, SAYS_BUFFER = 4;
  constexpr uint16_t WHOLE_PAGE = 1;
  uint8_t split = pieces(std::max(shape.readablePieces, shape.writablePieces)) << 4;
  if (queue != vsock::TRANSMIT_QUEUE) {
    uint16_t size = shape.writable >= 4096 ? WHOLE_PAGE : shape.writable % 300 & ~1u;
    return ops.push_back(make(OpKind::REQUEST, split | ROOM, size));
  }
  vsock::PacketHeader header;
  if (!read(chain, 0, header)) return;
  bool isClient = header.destinationPort >= 1u << 30;
  uint8_t a = split | (isClient ? FROM_CLIENT : 0);
  uint32_t c = header.op == vsock::OP_RW ? header.length % 40000 : header.bufferSize;
  if (header.op != vsock::OP_RW) a |= SAYS_BUFFER;
  ops.push_back(
      make(OpKind::REQUEST, a, vsockChoice(header, isClient), c, uint64_t(header.forwarded) << 32));
}

void vsockCall(HostCall::Reader call, Ops& ops) {
  constexpr uint8_t GREET = 0, FORWARD = 1, ANSWER = 2, TIME = 3, STIR = 5;
  constexpr uint64_t SAYS = 1, READS = 2, ENDS = 4;
  constexpr uint32_t FOUND = 1, NOBODY = 4, ROOM = 900;
  auto add = [&](uint8_t what, uint16_t b, uint32_t c, uint64_t d = 0) {
    ops.push_back(make(OpKind::EVENT, what, b, c, d));
  };
  uint16_t slot = call.getOffset();
  switch (call.getKind()) {
    case HostCall::Kind::ACCEPT:
      return add(call.getOffset() == 0 ? GREET : FORWARD, slot % 4, ROOM);
    case HostCall::Kind::CONNECTED:
      return add(ANSWER, slot, call.getResult() == 0 ? FOUND : NOBODY);
    case HostCall::Kind::TICK:
      return add(TIME, 0, 1);
    case HostCall::Kind::READ:
      if (call.getResult() > 0) return add(STIR, slot, call.getResult() % 100000, SAYS);
      return add(STIR, slot, 0, call.getResult() == 0 ? ENDS : 0);
    case HostCall::Kind::WRITE:
      return add(STIR, slot, call.getBytes() % 100000, READS);
    default:
      return;
  }
}

// The target has no deflate queue, as the device has nothing to do with what comes there.
kj::Maybe<uint8_t> balloonQueue(uint16_t index, const SeenDriver& driver) {
  KJ_IF_MAYBE (role, balloon::roleOf(index, driver.features, driver.enabled)) {
    switch (*role) {
      case balloon::Role::INFLATE:
        return uint8_t(0);
      case balloon::Role::DEFLATE:
        return nullptr;
      case balloon::Role::STATISTICS:
        return uint8_t(1);
      case balloon::Role::FREE_PAGE_HINT:
        return uint8_t(2);
      case balloon::Role::REPORTING:
        return uint8_t(3);
    }
  }
  return nullptr;
}

void balloonRequest(TakenChain::Reader chain, const Shape& shape, uint8_t queue, Ops& ops) {
  constexpr uint8_t PAGES = 0, STATISTICS = 1, ROUND = 2, FREE_PAGES = 3;
  constexpr uint32_t MOST_PAGES = 699, MOST_STATISTICS = 89;
  if (queue == 0) {
    uint32_t pages[2] = {};
    read(chain, 0, pages);
    uint64_t count = std::min<uint64_t>(shape.readable / sizeof(uint32_t), MOST_PAGES);
    bool isRow = count > 1 && pages[1] == pages[0] + 1;
    ops.push_back(make(OpKind::REQUEST, PAGES, count, pages[0], isRow ? 1 : 2));
  } else if (queue == 1) {
    uint16_t tag = 0;
    uint64_t value = 0;
    read(chain, 0, tag);
    read(chain, sizeof(tag), value);
    uint64_t count = shape.readable / balloon::STATISTIC_BYTES;
    ops.push_back(
        make(OpKind::REQUEST, STATISTICS, std::min<uint64_t>(count, MOST_STATISTICS), tag, value));
  } else if (shape.writable == 0) {
    uint32_t round = 0;
    read(chain, 0, round);
    ops.push_back(make(OpKind::REQUEST, ROUND, 0, round));
  } else {
    ops.push_back(make(OpKind::REQUEST, FREE_PAGES, pieces(shape.writablePieces),
                       std::min<uint64_t>(shape.writable, 0x17fff)));
  }
}

// A report is asked for by the broker, which is no call of the device's.
void balloonCall(HostCall::Reader, Ops&) {}

}  // namespace

const SeedKind NET_SEEDS{"net"_kj, netQueue, netRequest, netCall};
const SeedKind VSOCK_SEEDS{"vsock"_kj, sameQueue, vsockRequest, vsockCall};
const SeedKind BALLOON_SEEDS{"balloon"_kj, balloonQueue, balloonRequest, balloonCall};

}  // namespace troupe::fuzz
