#include "tests/fuzz/seed_kinds.h"

#include <algorithm>

#include "devices/blk/blk_wire.h"
#include "devices/blk/fuzz_request.h"
#include "devices/console/wire.h"
#include "devices/virtio/wire.h"

namespace troupe::fuzz {
namespace {

constexpr uint16_t ODD_BYTES = 0x20;  // of a disk's REQUEST's b: `c` is bytes, not sectors
constexpr uint16_t CONTROL = 2;       // of a console's REQUEST's b
constexpr uint16_t MUCH_TEXT = 1;
constexpr uint64_t FUZZED_SECTORS = blk::FUZZED_DISK_BYTES / virtio::BLK_SECTOR_BYTES;

// One REQUEST, or nothing that is worth one.
void blkRequest(TakenChain::Reader chain, const Shape& shape, uint8_t, Ops& ops) {
  // In the order of chooseRequest().
  constexpr uint32_t TYPES[] = {virtio::BLK_T_IN,      virtio::BLK_T_OUT,
                                virtio::BLK_T_FLUSH,   virtio::BLK_T_GET_ID,
                                virtio::BLK_T_DISCARD, virtio::BLK_T_WRITE_ZEROES};
  virtio::BlkRequestHeader header;
  if (!read(chain, 0, header)) return;
  auto type = std::find(std::begin(TYPES), std::end(TYPES), header.type);
  if (type == std::end(TYPES)) return;
  uint64_t data = header.type == virtio::BLK_T_OUT
                      ? shape.readable - sizeof(header)
                      : shape.writable - std::min<uint64_t>(shape.writable, 1);
  uint16_t flags = pieces(std::max(shape.readablePieces, shape.writablePieces) - 1);
  uint64_t sector = header.sector;
  virtio::BlkRange range;
  if (*type == virtio::BLK_T_DISCARD || *type == virtio::BLK_T_WRITE_ZEROES) {
    if (!read(chain, sizeof(header), range)) return;
    sector = range.sector;
    data = uint64_t(range.sectors) * virtio::BLK_SECTOR_BYTES;
  }
  bool isOdd = data % virtio::BLK_SECTOR_BYTES != 0;
  uint32_t amount = isOdd ? data % 20000 : data / virtio::BLK_SECTOR_BYTES % 64;
  if (header.type == virtio::BLK_T_GET_ID) amount = std::min<uint64_t>(data, 31);
  ops.push_back(make(OpKind::REQUEST, type - std::begin(TYPES), flags | (isOdd ? ODD_BYTES : 0),
                     amount, sector % FUZZED_SECTORS));
}

void rngRequest(TakenChain::Reader, const Shape& shape, uint8_t, Ops& ops) {
  ops.push_back(make(OpKind::REQUEST, pieces(shape.writablePieces) << 1, 0,
                     std::min<uint64_t>(shape.writable, 0x11fff)));
}

void consoleRequest(TakenChain::Reader chain, const Shape& shape, uint8_t, Ops& ops) {
  console::ControlMessage message;
  if (chain.getQueue() == console::CONTROL_TRANSMIT_QUEUE && read(chain, 0, message)) {
    ops.push_back(make(OpKind::REQUEST, 0, CONTROL, message.port % 5,
                       message.event % 9 | uint64_t(message.value & 1) << 16));
    return;
  }
  bool isText = shape.readable > 0;
  uint64_t bytes = isText ? shape.readable : shape.writable;
  uint16_t flags = bytes >= 80 ? MUCH_TEXT : 0;
  uint32_t count = isText ? shape.readablePieces : shape.writablePieces;
  ops.push_back(make(OpKind::REQUEST, pieces(count) << 1 | (isText ? 1 : 0), flags,
                     std::min<uint64_t>(bytes, 39999)));
}

void noHostCall(HostCall::Reader, Ops&) {}

void typed(HostCall::Reader call, Ops& ops) {
  if (call.getKind() == HostCall::Kind::INPUT)
    ops.push_back(make(OpKind::EVENT, 0, 0, call.getBytes()));
}

}  // namespace

const SeedKind BLK_SEEDS{"blk"_kj, sameQueue, blkRequest, noHostCall};
const SeedKind RNG_SEEDS{"rng"_kj, sameQueue, rngRequest, noHostCall};
const SeedKind CONSOLE_SEEDS{"console"_kj, sameQueue, consoleRequest, typed};

kj::Maybe<const SeedKind&> seedKind(kj::StringPtr name) {
  for (auto one :
       {&BLK_SEEDS, &RNG_SEEDS, &CONSOLE_SEEDS, &NET_SEEDS, &VSOCK_SEEDS, &BALLOON_SEEDS})
    if (one->name == name) return *one;
  return nullptr;
}

Op make(OpKind kind, uint8_t a, uint16_t b, uint32_t c, uint64_t d) {
  return Op{uint8_t(kind), a, b, c, d};
}

uint16_t pieces(uint32_t count) {
  return std::min(count, 7u);
}

kj::Maybe<uint8_t> sameQueue(uint16_t index, const SeenDriver&) {
  return uint8_t(index & 0x0f);
}

Shape::Shape(TakenChain::Reader chain) {
  for (auto one : chain.getDescriptors()) {
    if (one.getFlags() & virtio::DESC_F_INDIRECT) {
      indirect = true;
    } else if (one.getFlags() & virtio::DESC_F_WRITE) {
      writable += one.getLength();
      writablePieces++;
    } else {
      readable += one.getLength();
      readablePieces++;
    }
  }
}

}  // namespace troupe::fuzz
