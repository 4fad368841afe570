#include "devices/blk/qcow2/testing/memory_file.h"

#include <errno.h>
#include <kj/debug.h>

#include <cstring>
#include <random>

namespace troupe::blk::qcow2::testing {
namespace {

constexpr uint64_t BLOCK = 512;

void resize(kj::Vector<kj::byte>& bytes, uint64_t size) {
  size_t before = bytes.size();
  bytes.resize(size);
  if (size > before) memset(bytes.begin() + before, 0, size - before);
}

}  // namespace

MemoryFile::MemoryFile(kj::ArrayPtr<const kj::byte> initial, uint64_t mostBytes)
    : mostBytes(mostBytes) {
  bytes.addAll(initial);
  stable.addAll(initial);
}

int64_t MemoryFile::read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  if (readError != 0) return -readError;
  int64_t done = 0;
  for (const iovec& piece : pieces) {
    if (offset >= bytes.size()) break;
    size_t part = kj::min(piece.iov_len, bytes.size() - offset);
    if (isShort && part > 1) part /= 2;
    memcpy(piece.iov_base, bytes.begin() + offset, part);
    offset += part;
    done += part;
    if (part < piece.iov_len) break;
  }
  return done;
}

bool MemoryFile::fails(int& error) {
  changeCount++;
  if (!failing) return false;
  if (callsUntilFailure > 0) {
    callsUntilFailure--;
    return false;
  }
  if (!failingForGood) failing = false;
  error = -failure;
  return true;
}

void MemoryFile::failAfter(uint64_t calls, int error, bool forGood) {
  failing = true;
  callsUntilFailure = calls;
  failure = error;
  failingForGood = forGood;
}

void MemoryFile::note(uint64_t offset, uint64_t count) {
  uint64_t last = (offset + count + BLOCK - 1) / BLOCK;
  while (changed.size() < last)
    changed.add(false);
  for (uint64_t block = offset / BLOCK; block < last; block++)
    changed[block] = true;
}

int64_t MemoryFile::write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) {
  int error;
  if (fails(error)) return error;
  int64_t done = 0;
  for (const iovec& piece : pieces) {
    size_t part = piece.iov_len;
    if (isShort && part > 1) part /= 2;
    KJ_REQUIRE(offset + part <= mostBytes, "the file grows beyond what the test allows", offset);
    if (offset + part > bytes.size()) resize(bytes, offset + part);
    memcpy(bytes.begin() + offset, piece.iov_base, part);
    note(offset, part);
    offset += part;
    done += part;
    if (part < piece.iov_len) break;
  }
  return done;
}

int MemoryFile::sync() {
  int error;
  if (fails(error)) return error;
  syncCount++;
  // A write that was cut short by the end of the power does not count as one, so growth alone is
  // no change of a block.
  resize(stable, bytes.size());
  for (uint64_t block = 0; block < changed.size(); block++) {
    if (!changed[block]) continue;
    uint64_t at = block * BLOCK;
    if (at >= bytes.size()) continue;
    memcpy(stable.begin() + at, bytes.begin() + at, kj::min(BLOCK, bytes.size() - at));
    changed[block] = false;
  }
  return 0;
}

int MemoryFile::truncate(uint64_t size) {
  int error;
  if (fails(error)) return error;
  KJ_REQUIRE(size <= mostBytes, "the file grows beyond what the test allows", size);
  resize(bytes, size);
  return 0;
}

// Filled with what nobody wrote: whoever reads a hole again sees it.
int MemoryFile::punch(uint64_t offset, uint64_t count) {
  int error;
  if (fails(error)) return error;
  if (offset >= bytes.size()) return 0;
  count = kj::min(count, bytes.size() - offset);
  memset(bytes.begin() + offset, 0xdb, count);
  note(offset, count);
  return 0;
}

kj::Array<kj::byte> MemoryFile::afterPowerLoss(uint64_t seed) const {
  std::mt19937_64 random(seed);
  auto left = kj::heapArray<kj::byte>(bytes.size());
  memset(left.begin(), 0, left.size());
  memcpy(left.begin(), stable.begin(), kj::min(stable.size(), left.size()));
  for (uint64_t block = 0; block < changed.size(); block++) {
    uint64_t at = block * BLOCK;
    if (!changed[block] || at >= bytes.size() || random() % 2 == 0) continue;
    memcpy(left.begin() + at, bytes.begin() + at, kj::min(BLOCK, bytes.size() - at));
  }
  return left;
}

}  // namespace troupe::blk::qcow2::testing
