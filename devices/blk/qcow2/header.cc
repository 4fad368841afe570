#include "devices/blk/qcow2/header.h"

#include <kj/debug.h>

namespace troupe::blk::qcow2 {
namespace {

// A name in words and a number for whoever reads the message beside the specification.
void refuseUnless(bool sound, kj::StringPtr what, uint64_t value) {
  if (sound) return;
  kj::throwFatalException(
      kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                    kj::str("TRP-blk-020: the qcow2 image has a header that cannot be: ", what,
                            ", which is ", value)));
}

bool liesInFile(uint64_t offset, uint64_t bytes, uint64_t fileBytes, const Geometry& geometry) {
  return offset != 0 && geometry.isAligned(offset) && offset < fileBytes &&
         bytes <= geometry.clustersFor(fileBytes) * geometry.clusterBytes() - offset;
}

void checkFeatures(uint64_t incompatible, Access access) {
  constexpr uint64_t KNOWN = INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT | INCOMPATIBLE_COMPRESSION;
  KJ_REQUIRE(!(incompatible & INCOMPATIBLE_EXTERNAL_DATA),
             "TRP-blk-021: the qcow2 image keeps its data in an external file, which is not "
             "supported; `qemu-img convert -O qcow2` makes one that does not");
  KJ_REQUIRE(!(incompatible & INCOMPATIBLE_EXTENDED_L2),
             "TRP-blk-021: the qcow2 image has extended L2 entries (subclusters), which are not "
             "supported; `qemu-img convert -O qcow2` makes one without");
  KJ_REQUIRE((incompatible & ~(KNOWN)) == 0,
             "TRP-blk-021: the qcow2 image has incompatible features that are not known",
             kj::hex(incompatible & ~KNOWN));
  KJ_REQUIRE(!(incompatible & INCOMPATIBLE_CORRUPT) || access == Access::READ_ONLY,
             "TRP-blk-022: the qcow2 image is marked corrupt and can only be read (,ro); "
             "`qemu-img check -r all` may repair it");
}

Compression compressionOf(kj::ArrayPtr<const kj::byte> start, uint32_t headerBytes,
                          uint64_t incompatible) {
  uint8_t type = headerBytes > HEADER_BYTES_V3 ? start[HEADER_BYTES_V3] : 0;
  KJ_REQUIRE(type <= 1, "TRP-blk-021: the qcow2 image has a compression that is not known", type);
  bool other = incompatible & INCOMPATIBLE_COMPRESSION;
  refuseUnless(other == (type != 0), "compression type and its feature bit", type);
  return type == 0 ? Compression::ZLIB : Compression::ZSTD;
}

kj::Maybe<kj::String> backingFormatOf(kj::ArrayPtr<const kj::byte> start, size_t at, size_t end) {
  kj::Maybe<kj::String> format;
  while (end - at >= 8) {
    uint32_t type = load32(start.begin() + at);
    uint32_t bytes = load32(start.begin() + at + 4);
    at += 8;
    if (type == EXTENSION_END) break;
    refuseUnless(bytes <= end - at, "header extension's length", bytes);
    if (type == EXTENSION_BACKING_FORMAT) {
      refuseUnless(bytes <= 15, "length of the backing format's name", bytes);
      format = kj::heapString(start.slice(at, at + bytes).asChars());
    }
    at += kj::min((size_t(bytes) + 7) & ~size_t(7), end - at);
  }
  return format;
}

void readBacking(Header& header, kj::ArrayPtr<const kj::byte> start, uint32_t headerBytes) {
  uint64_t offset = load64(start.begin() + 8);
  uint32_t bytes = load32(start.begin() + 16);
  size_t room = kj::min(start.size(), header.geometry.clusterBytes());
  size_t end = room;
  if (offset != 0) {
    refuseUnless(bytes >= 1 && bytes <= MOST_BACKING_NAME_BYTES, "length of the backing name",
                 bytes);
    refuseUnless(offset >= headerBytes && offset <= room && bytes <= room - offset,
                 "offset of the backing name", offset);
    auto name = start.slice(offset, offset + bytes);
    for (kj::byte letter : name)
      refuseUnless(letter != 0, "NUL in the backing name", letter);
    header.backingName = kj::heapString(name.asChars());
    end = offset;
  }
  header.backingFormat = backingFormatOf(start, headerBytes, end);
}

void checkTables(const Header& header, uint64_t fileBytes, Access access) {
  const Geometry& geometry = header.geometry;
  refuseUnless(header.size >= 512 && header.size <= MOST_BYTES, "size of the disk", header.size);
  refuseUnless(header.l1Entries <= MOST_L1_ENTRIES, "entries of the L1 table", header.l1Entries);
  refuseUnless(header.l1Entries >= geometry.l1EntriesFor(header.size),
               "entries of the L1 table, too few for the disk", header.l1Entries);
  refuseUnless(liesInFile(header.l1Offset, uint64_t(header.l1Entries) * 8, fileBytes, geometry),
               "offset of the L1 table", header.l1Offset);
  if (access == Access::READ_ONLY) return;
  uint64_t tableBytes = uint64_t(header.refcountTableClusters) << geometry.clusterBits;
  refuseUnless(tableBytes > 0 && tableBytes <= MOST_REFCOUNT_TABLE_BYTES,
               "clusters of the refcount table", header.refcountTableClusters);
  refuseUnless(liesInFile(header.refcountTableOffset, tableBytes, fileBytes, geometry),
               "offset of the refcount table", header.refcountTableOffset);
  refuseUnless(header.snapshotCount <= MOST_SNAPSHOTS, "number of snapshots", header.snapshotCount);
  refuseUnless(
      header.snapshotCount == 0 || liesInFile(header.snapshotsOffset, 1, fileBytes, geometry),
      "offset of the snapshot table", header.snapshotsOffset);
}

}  // namespace

Header parseHeader(kj::ArrayPtr<const kj::byte> start, uint64_t fileBytes, Access access) {
  const kj::byte* at = start.begin();
  KJ_REQUIRE(start.size() >= 512 && fileBytes >= HEADER_BYTES_V2 && load32(at) == MAGIC,
             "TRP-blk-020: the disk is no qcow2 image; its format is said with format=");
  refuseUnless(fileBytes <= MOST_BYTES, "length of the file", fileBytes);

  Header header = {};
  header.version = load32(at + 4);
  KJ_REQUIRE(header.version == 2 || header.version == 3,
             "TRP-blk-021: the qcow2 image has a version that is not known; 2 and 3 are",
             header.version);
  uint32_t clusterBits = load32(at + 20);
  refuseUnless(clusterBits >= LEAST_CLUSTER_BITS && clusterBits <= MOST_CLUSTER_BITS,
               "cluster bits", clusterBits);
  KJ_REQUIRE(load32(at + 32) == 0,
             "TRP-blk-021: the qcow2 image is encrypted, which is not "
             "supported");
  uint32_t refcountOrder = 4;
  uint32_t headerBytes = HEADER_BYTES_V2;
  if (header.version == 3) {
    header.incompatible = load64(at + AT_INCOMPATIBLE);
    header.compatible = load64(at + 80);
    header.autoclear = load64(at + AT_AUTOCLEAR);
    refcountOrder = load32(at + 96);
    headerBytes = load32(at + 100);
    refuseUnless(headerBytes >= HEADER_BYTES_V3 && headerBytes % 8 == 0 &&
                     headerBytes <= kj::min(start.size(), 1ull << clusterBits),
                 "length of the header", headerBytes);
    checkFeatures(header.incompatible, access);
    header.compression = compressionOf(start, headerBytes, header.incompatible);
  }
  refuseUnless(refcountOrder <= MOST_REFCOUNT_ORDER, "refcount order", refcountOrder);
  header.geometry = Geometry{clusterBits, refcountOrder};
  header.size = load64(at + AT_SIZE);
  header.l1Entries = load32(at + AT_L1_ENTRIES);
  header.l1Offset = load64(at + AT_L1_OFFSET);
  header.refcountTableOffset = load64(at + AT_REFCOUNT_TABLE_OFFSET);
  header.refcountTableClusters = load32(at + AT_REFCOUNT_TABLE_CLUSTERS);
  header.snapshotCount = load32(at + 60);
  header.snapshotsOffset = load64(at + 64);
  checkTables(header, fileBytes, access);
  readBacking(header, start, headerBytes);
  return header;
}

HeaderBlock::HeaderBlock(ImageFile& file, kj::ArrayPtr<const kj::byte> start)
    : file(file), block(kj::max(512u, file.blockBytes())) {
  memcpy(block.begin(), start.begin(), block.size());
}

int HeaderBlock::write() {
  return writeFully(file, block.all(), 0);
}

}  // namespace troupe::blk::qcow2
