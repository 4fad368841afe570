#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

#include "devices/blk/qcow2/aligned_bytes.h"
#include "devices/blk/qcow2/format.h"
#include "devices/blk/qcow2/image_file.h"

namespace troupe::blk::qcow2 {

enum class Access { READ_WRITE, READ_ONLY };
enum class Compression : uint8_t { ZLIB, ZSTD };

// The header of an image, every field checked as far as that is possible without its tables.
struct Header {
  uint32_t version;
  Geometry geometry;
  uint64_t size;  // of the guest's disk
  uint64_t l1Offset;
  uint32_t l1Entries;
  uint64_t refcountTableOffset;
  uint32_t refcountTableClusters;
  uint64_t snapshotsOffset;
  uint32_t snapshotCount;
  uint64_t incompatible;
  uint64_t compatible;
  uint64_t autoclear;
  Compression compression;
  kj::Maybe<kj::String> backingName;
  kj::Maybe<kj::String> backingFormat;

  bool isDirty() const { return incompatible & INCOMPATIBLE_DIRTY; }
  bool hasLazyRefcounts() const { return compatible & COMPATIBLE_LAZY_REFCOUNTS; }
};

// `start`: the first bytes of the file, a cluster of them where the file has so many.
// Throws TRP-blk-020 to 025.
Header parseHeader(kj::ArrayPtr<const kj::byte> start, uint64_t fileBytes, Access access);

// The header in the file: its first 512 bytes, which hold all fields that change. A write of them
// is one sector, so it happens or it does not.
class HeaderBlock {
 public:
  HeaderBlock(ImageFile& file, kj::ArrayPtr<const kj::byte> start);
  kj::byte* fields() { return block.begin(); }
  // 0 or -errno; not synced.
  int write();

 private:
  ImageFile& file;
  AlignedBytes block;
};

}  // namespace troupe::blk::qcow2
