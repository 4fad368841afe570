#include "devices/blk/testing/checking_driver.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <algorithm>
#include <cstring>

namespace troupe::blk::testing {
namespace {

using virtio::testing::Buffer;
using virtio::testing::FakeDriver;
using virtio::testing::readable;
using virtio::testing::writable;

constexpr uint32_t SECTORS = CheckingDriver::BLOCK / 512;
constexpr kj::byte UNTOUCHED = 0xee;

void fillWith(kj::ArrayPtr<kj::byte> bytes, uint64_t tag) {
  for (size_t at = 0; at < bytes.size(); at += sizeof(tag))
    memcpy(bytes.begin() + at, &tag, sizeof(tag));
}

bool isZero(kj::ArrayPtr<const kj::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](kj::byte byte) { return byte == 0; });
}

}  // namespace

CheckingDriver::CheckingDriver(uint32_t seed, kj::Array<kj::byte> contents, uint16_t queues)
    : random(seed) {
  for (uint16_t i = 0; i < queues; i++)
    drivers.add(kj::heap<FakeDriver>(ram, 256));
  for (uint32_t i = 0; i < DEPTH; i++)
    slots.push_back(
        Slot{ram.allocate(sizeof(virtio::BlkRequestHeader)), allocate(BLOCK), ram.allocate(1)});
  beginAnew(kj::mv(contents));
}

void CheckingDriver::beginAnew(kj::Array<kj::byte> contents) {
  for (auto& request : underWay)
    slots.push_back(request.second.slot);
  underWay.clear();
  content = kj::mv(contents);
  mayBeZeroes.assign(blocks(), false);
  busy.assign(blocks(), false);
}

bool CheckingDriver::choose(Request& request) {
  uint32_t die = random() % 32;
  request.kind = die == 0   ? Kind::FLUSH
                 : die == 1 ? Kind::DISCARD
                 : die <= 3 ? Kind::ZEROES
                 : die < 16 ? Kind::READ
                            : Kind::WRITE;
  bool isRange = request.kind == Kind::DISCARD || request.kind == Kind::ZEROES;
  request.count = request.kind == Kind::FLUSH ? 0 : isRange ? 1 + random() % 24 : 1;
  request.first = random() % (blocks() - request.count + 1);
  request.tag = nextTag++;
  auto begin = busy.begin() + request.first;
  if (std::find(begin, begin + request.count, true) != begin + request.count) return false;
  std::fill(begin, begin + request.count, true);
  return true;
}

void CheckingDriver::fill() {
  while (!slots.empty()) {
    Request request;
    if (!choose(request)) continue;
    request.slot = slots.back();
    slots.pop_back();
    send(request);
  }
}

// All is in its place before the device can see it.
void CheckingDriver::send(const Request& request) {
  virtio::BlkRequestHeader header{virtio::BLK_T_IN, 0, request.first * SECTORS};
  auto data = ram.bytes(request.slot.data, BLOCK);
  Buffer buffer = readable(request.slot.data, BLOCK);
  switch (request.kind) {
    case Kind::READ:
      memset(data.begin(), UNTOUCHED, BLOCK);
      buffer.writable = true;
      break;
    case Kind::WRITE:
      header.type = virtio::BLK_T_OUT;
      fillWith(data, request.tag);
      break;
    case Kind::FLUSH:
      header = {virtio::BLK_T_FLUSH, 0, 0};
      break;
    case Kind::DISCARD:
    case Kind::ZEROES: {
      bool discards = request.kind == Kind::DISCARD;
      header = {discards ? virtio::BLK_T_DISCARD : virtio::BLK_T_WRITE_ZEROES, 0, 0};
      virtio::BlkRange range{request.first * SECTORS, uint32_t(request.count * SECTORS),
                             discards ? 0 : uint32_t(random() % 2)};
      memcpy(data.begin(), &range, sizeof(range));
      buffer.length = sizeof(range);
      break;
    }
  }
  memcpy(ram.bytes(request.slot.header, sizeof(header)).begin(), &header, sizeof(header));
  ram.bytes(request.slot.status, 1)[0] = UNTOUCHED;

  kj::Vector<Buffer> buffers;
  buffers.add(readable(request.slot.header, sizeof(header)));
  if (request.kind != Kind::FLUSH) buffers.add(buffer);
  buffers.add(writable(request.slot.status, 1));
  uint16_t queue = random() % drivers.size();
  uint16_t head = driver(queue).add(buffers);
  ASSERT_TRUE(underWay.emplace(std::make_pair(queue, uint32_t(head)), request).second);
}

uint64_t CheckingDriver::check() {
  uint64_t count = 0;
  for (uint16_t queue = 0; queue < drivers.size(); queue++) {
    for (;;) {
      auto used = driver(queue).takeUsed();
      if (used == nullptr) break;
      auto found = underWay.find({queue, KJ_ASSERT_NONNULL(used).head});
      if (found == underWay.end()) {
        ADD_FAILURE() << "answered twice";
        return count;
      }
      checkOne(found->second);
      slots.push_back(found->second.slot);
      underWay.erase(found);
      ++count;
    }
  }
  answered += count;
  return count;
}

void CheckingDriver::checkOne(const Request& request) {
  EXPECT_EQ(ram.bytes(request.slot.status, 1)[0], virtio::BLK_S_OK);
  auto data = ram.bytes(request.slot.data, BLOCK);
  if (request.kind == Kind::READ) {
    EXPECT_TRUE(holds(data, request.first)) << "block " << request.first;
  }
  for (uint64_t block = request.first; block < request.first + request.count; block++) {
    busy[block] = false;
    if (request.kind == Kind::WRITE) fillWith(contentOf(block), request.tag);
    if (request.kind == Kind::ZEROES) memset(contentOf(block).begin(), 0, BLOCK);
    if (request.kind != Kind::READ) mayBeZeroes[block] = request.kind == Kind::DISCARD;
  }
}

bool CheckingDriver::holds(kj::ArrayPtr<const kj::byte> bytes, uint64_t block) const {
  if (bytes == content.slice(block * BLOCK, (block + 1) * BLOCK)) return true;
  return mayBeZeroes[block] && isZero(bytes);
}

void CheckingDriver::expectHeldBy(kj::ArrayPtr<const kj::byte> disk) const {
  ASSERT_EQ(disk.size(), content.size());
  for (uint64_t block = 0; block < blocks(); block++) {
    EXPECT_TRUE(holds(disk.slice(block * BLOCK, (block + 1) * BLOCK), block)) << "block " << block;
  }
}

}  // namespace troupe::blk::testing
