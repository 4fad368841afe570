#include "devices/blk/qcow2/snapshots.h"

#include <kj/debug.h>

namespace troupe::blk::qcow2 {
namespace {

constexpr size_t FIXED_BYTES = 40;
constexpr uint32_t MOST_EXTRA_BYTES = 1024;

// Reads `bytes` at any offset: whole blocks around it.
void readAt(ImageFile& file, uint64_t offset, kj::ArrayPtr<kj::byte> bytes) {
  uint64_t unit = kj::max(512u, file.blockBytes());
  uint64_t begin = offset & ~(unit - 1);
  uint64_t end = (offset + bytes.size() + unit - 1) & ~(unit - 1);
  AlignedBytes blocks(end - begin);
  int error = readFully(file, blocks.all(), begin);
  KJ_REQUIRE(error == 0, "TRP-blk-026: the qcow2 image cannot be read", "snapshot table",
             strerror(-error));
  memcpy(bytes.begin(), blocks.begin() + (offset - begin), bytes.size());
}

}  // namespace

void forEachSnapshot(ImageFile& file, const Header& header,
                     kj::FunctionParam<void(const SnapshotTables&)> visit) {
  const Geometry& geometry = header.geometry;
  uint64_t fileBytes = file.size();
  uint64_t at = header.snapshotsOffset;
  for (uint32_t i = 0; i < header.snapshotCount; i++) {
    auto refuseUnless = [&](bool sound) {
      KJ_REQUIRE(sound,
                 "TRP-blk-023: the qcow2 image is corrupt: its snapshot table cannot be; see "
                 "`qemu-img check`",
                 i);
    };
    refuseUnless(at < fileBytes && fileBytes - at >= FIXED_BYTES);
    kj::byte fixed[FIXED_BYTES];
    readAt(file, at, kj::arrayPtr(fixed, FIXED_BYTES));
    uint32_t extra = load32(fixed + 36);
    refuseUnless(extra <= MOST_EXTRA_BYTES);
    SnapshotTables snapshot;
    snapshot.l1Offset = load64(fixed);
    snapshot.l1Entries = load32(fixed + 8);
    snapshot.end = at + FIXED_BYTES + extra + load16(fixed + 12) + load16(fixed + 14);
    uint64_t l1Bytes = uint64_t(snapshot.l1Entries) * 8;
    refuseUnless(snapshot.l1Entries <= MOST_L1_ENTRIES && snapshot.l1Offset != 0 &&
                 geometry.isAligned(snapshot.l1Offset) && snapshot.l1Offset < fileBytes &&
                 l1Bytes <=
                     geometry.clustersFor(fileBytes) * geometry.clusterBytes() - snapshot.l1Offset);
    visit(snapshot);
    at = (snapshot.end + 7) & ~7ull;
  }
}

}  // namespace troupe::blk::qcow2
