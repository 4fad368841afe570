#include "tests/fuzz/recording_ops.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string>

#include "devices/blk/blk_wire.h"
#include "devices/blk/fuzz_request.h"
#include "devices/console/wire.h"
#include "devices/virtio/wire.h"

namespace troupe::fuzz {
namespace {

constexpr uint32_t CHAINS_PER_KICK = 4;
constexpr uint8_t INDIRECT = 0x10;    // of PUBLISH's a
constexpr uint16_t ODD_BYTES = 0x20;  // of a disk's REQUEST's b: `c` is bytes, not sectors
constexpr uint16_t CONTROL = 2;       // of a console's REQUEST's b
constexpr uint16_t MUCH_TEXT = 1;
constexpr uint64_t FUZZED_SECTORS = blk::FUZZED_DISK_BYTES / virtio::BLK_SECTOR_BYTES;

Op make(OpKind kind, uint8_t a = 0, uint16_t b = 0, uint32_t c = 0, uint64_t d = 0) {
  return Op{uint8_t(kind), a, b, c, d};
}

// What a chain offers, by its descriptors.
struct Shape {
  explicit Shape(TakenChain::Reader chain) {
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
  bool indirect = false;
  uint64_t readable = 0, writable = 0;
  uint32_t readablePieces = 0, writablePieces = 0;
};

uint16_t pieces(uint32_t count) {
  return std::min(count, 7u);
}

template <typename T>
bool read(TakenChain::Reader chain, size_t offset, T& value) {
  auto bytes = chain.getReadable();
  if (bytes.size() < offset + sizeof(value)) return false;
  memcpy(&value, bytes.begin() + offset, sizeof(value));
  return true;
}

// One REQUEST, or nothing that is worth one.
void blkRequest(TakenChain::Reader chain, const Shape& shape, std::vector<Op>& ops) {
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

void rngRequest(const Shape& shape, std::vector<Op>& ops) {
  ops.push_back(make(OpKind::REQUEST, pieces(shape.writablePieces) << 1, 0,
                     std::min<uint64_t>(shape.writable, 0x11fff)));
}

void consoleRequest(TakenChain::Reader chain, const Shape& shape, std::vector<Op>& ops) {
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

// The buffers of a chain that is no request its driver would make.
void buffers(TakenChain::Reader chain, std::vector<Op>& ops) {
  constexpr uint8_t WRITABLE = 8;
  constexpr uint16_t RAW_LENGTH = 7;
  for (auto one : chain.getDescriptors()) {
    if (one.getFlags() & virtio::DESC_F_INDIRECT) continue;
    uint8_t flags = one.getFlags() & virtio::DESC_F_WRITE ? WRITABLE : 0;
    bool isShort = one.getLength() < 4096;
    ops.push_back(make(OpKind::BUFFER, uint8_t(Where::DATA) | flags, isShort ? 0 : RAW_LENGTH,
                       one.getLength()));
  }
}

class Inputs {
 public:
  explicit Inputs(kj::StringPtr kind) : kind(kind) {}

  void see(FlightEvent::Reader event) {
    switch (event.which()) {
      case FlightEvent::ACTIVATED:
        finish();
        features = event.getActivated().getFeatures();
        break;
      case FlightEvent::RESET:
        if (!ops.empty()) ops.push_back(make(OpKind::RESET));
        break;
      case FlightEvent::CONFIG_WRITTEN: {
        uint64_t value = 0;
        auto data = event.getConfigWritten().getData();
        memcpy(&value, data.begin(), std::min(data.size(), sizeof(value)));
        add({make(OpKind::CONFIG, 0, data.size(), event.getConfigWritten().getOffset(), value)});
        break;
      }
      case FlightEvent::TAKEN:
        chain(event.getTaken());
        break;
      case FlightEvent::CALLED:
        if (event.getCalled().getKind() == HostCall::Kind::INPUT)
          add({make(OpKind::EVENT, 0, 0, event.getCalled().getBytes())});
        break;
      default:
        break;
    }
  }

  std::vector<std::vector<Op>> take() {
    finish();
    return std::move(inputs);
  }

 private:
  void chain(TakenChain::Reader taken) {
    Shape shape(taken);
    std::vector<Op> request;
    if (taken.getRefused()) {
      buffers(taken, request);
    } else if (kind == "blk") {
      blkRequest(taken, shape, request);
    } else if (kind == "rng") {
      rngRequest(shape, request);
    } else {
      consoleRequest(taken, shape, request);
    }
    if (request.empty()) buffers(taken, request);
    if (request.empty()) return;
    uint8_t queue = taken.getQueue() & 0x0f;
    request.push_back(make(OpKind::PUBLISH, queue | (shape.indirect ? INDIRECT : 0)));
    if (++published % CHAINS_PER_KICK == 0 || taken.getRefused())
      request.push_back(make(OpKind::KICK, queue));
    lastQueue = queue;
    add(request);
  }

  // Whole requests only; the last one of an input is a kick.
  void add(const std::vector<Op>& more) {
    if (ops.size() + more.size() >= MAX_OPS) finish();
    if (more.size() >= MAX_OPS - 1) return;
    if (ops.empty()) ops.push_back(make(OpKind::FEATURES, 0, 0, 0, features));
    ops.insert(ops.end(), more.begin(), more.end());
  }

  void finish() {
    if (ops.size() > 1) {
      if (ops.size() < MAX_OPS) ops.push_back(make(OpKind::KICK, lastQueue));
      std::string bytes(reinterpret_cast<const char*>(ops.data()), ops.size() * sizeof(Op));
      if (known.insert(bytes).second) inputs.push_back(ops);
    }
    ops.clear();
    published = 0;
  }

  const kj::StringPtr kind;
  uint64_t features = 0;
  uint8_t lastQueue = 0;
  uint32_t published = 0;
  std::vector<Op> ops;
  std::vector<std::vector<Op>> inputs;
  std::set<std::string> known;
};

}  // namespace

std::vector<std::vector<Op>> opsOf(kj::StringPtr kind, const EventList& events) {
  if (kind != "blk" && kind != "rng" && kind != "console") return {};
  Inputs inputs(kind);
  for (size_t i = 0; i < events.size(); i++)
    events.with(i, [&](FlightEvent::Reader event) { inputs.see(event); });
  return inputs.take();
}

}  // namespace troupe::fuzz
