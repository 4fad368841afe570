#pragma once

#include <kj/array.h>
#include <kj/common.h>

#include <cstdint>
#include <cstring>

namespace troupe::blk::qcow2 {

// Memory that O_DIRECT can move, and that knows which part of it differs from the file.
class AlignedBytes {
 public:
  explicit AlignedBytes(size_t size) : storage(kj::heapArray<kj::byte>(size + ALIGNMENT)) {
    size_t skip = -reinterpret_cast<uintptr_t>(storage.begin()) & (ALIGNMENT - 1);
    bytes = storage.slice(skip, skip + size);
  }
  AlignedBytes(AlignedBytes&&) = default;
  AlignedBytes& operator=(AlignedBytes&&) = default;

  kj::byte* begin() { return bytes.begin(); }
  const kj::byte* begin() const { return bytes.begin(); }
  size_t size() const { return bytes.size(); }
  kj::ArrayPtr<kj::byte> all() { return bytes; }
  void clear() { memset(bytes.begin(), 0, bytes.size()); }

  void touch(size_t from, size_t count) {
    if (dirtyFrom == dirtyTo) {
      dirtyFrom = from;
      dirtyTo = from + count;
    } else {
      dirtyFrom = kj::min(dirtyFrom, from);
      dirtyTo = kj::max(dirtyTo, from + count);
    }
  }
  bool isDirty() const { return dirtyFrom != dirtyTo; }
  void clean() { dirtyFrom = dirtyTo = 0; }

  // The part to write: whole pages, or up to the end.
  struct Part {
    size_t offset;
    kj::ArrayPtr<kj::byte> bytes;
  };
  Part dirtyPart() {
    size_t from = dirtyFrom & ~(ALIGNMENT - 1);
    size_t to = kj::min((dirtyTo + ALIGNMENT - 1) & ~(ALIGNMENT - 1), bytes.size());
    return {from, bytes.slice(from, to)};
  }

 private:
  static constexpr size_t ALIGNMENT = 4096;
  kj::Array<kj::byte> storage;
  kj::ArrayPtr<kj::byte> bytes;
  size_t dirtyFrom = 0;
  size_t dirtyTo = 0;
};

}  // namespace troupe::blk::qcow2
