#include "devices/blk/qcow2/check.h"

#include <kj/debug.h>
#include <kj/exception.h>

#include "devices/blk/qcow2/aligned_bytes.h"
#include "devices/blk/qcow2/checked_counts.h"
#include "devices/blk/qcow2/format.h"
#include "devices/blk/qcow2/snapshots.h"

namespace troupe::blk::qcow2 {
namespace {

constexpr uint64_t WINDOW_CLUSTERS = 32 << 20;  // 64 MiB of counters; 2 TiB with the usual clusters
constexpr uint64_t MOST_CLUSTERS = 1ull << 31;  // as for qemu-img

constexpr uint64_t L2_RESERVED = 0x3f000000000001fe;  // of an entry that is not compressed

void requireRead(int error, kj::StringPtr what) {
  KJ_REQUIRE(error == 0, "TRP-blk-026: the qcow2 image cannot be read", what, strerror(-error));
}
void requireWritten(int error) {
  KJ_REQUIRE(error == 0, "TRP-disk-102: the image cannot be written", strerror(-error));
}

// One check of one image.
class Check {
 public:
  Check(ImageFile& file, const Header& header, uint64_t windowClusters,
        kj::FunctionParam<void(uint64_t, uint64_t)>& progress)
      : file(file),
        header(header),
        geometry(header.geometry),
        fileBytes(file.size()),
        clusters(geometry.clustersFor(fileBytes)),
        progress(progress),
        counts(file, header),
        usage(kj::heapArray<uint16_t>(kj::min(clusters + 1, windowClusters))),
        l1(loadL1(header.l1Offset, header.l1Entries)),
        table(geometry.clusterBytes()) {
    result.totalClusters = geometry.clustersFor(header.size);
    for (uint32_t i = 0; i < header.l1Entries; i++)
      tablesPerPass += load64(l1.begin() + uint64_t(i) * 8) != 0;
  }

  CheckResult run(Repair repair) {
    passes = (clusters + usage.size()) / usage.size();
    bool mayRepair = repair == Repair::LEAKS;
    forWindows([this] { compare(); });
    if (mayRepair && result.errors == 0 && result.leaks > 0) repairLeaks();
    return kj::mv(result);
  }

 private:
  template <typename Then>
  void forWindows(Then&& then) {
    for (window = 0; window <= clusters; window += usage.size()) {
      memset(usage.begin(), 0, usage.size() * sizeof(uint16_t));
      countAll();
      then();
    }
  }

  // Flaws that are found in every pass are noted in the first.
  bool isFirstPass() const { return window == 0 && !repairing; }
  void note(Flaw flaw, uint64_t cluster, uint64_t counted = 0, uint64_t used = 0) {
    if (flaw == Flaw::LEAKED) {
      result.leaks++;
    } else {
      result.errors++;
    }
    if (result.findings.size() < MOST_FINDINGS)
      result.findings.add(Finding{flaw, cluster, counted, used});
  }
  void noteOnce(Flaw flaw, uint64_t cluster) {
    if (isFirstPass()) note(flaw, cluster);
  }

  AlignedBytes loadL1(uint64_t offset, uint32_t entries) {
    AlignedBytes bytes(geometry.clustersFor(uint64_t(entries) * 8) << geometry.clusterBits);
    requireRead(readFully(file, bytes.all(), offset), "L1 table");
    return bytes;
  }

  // The last cluster of a file may be cut short.
  bool isOutside(uint64_t offset, uint64_t bytes) const {
    return offset + bytes >= fileBytes + geometry.clusterBytes();
  }
  // False if it does not lie in the file.
  bool count(uint64_t offset, uint64_t bytes) {
    if (bytes == 0) return true;
    if (isOutside(offset, bytes)) {
      noteOnce(Flaw::OUTSIDE, geometry.clusterOf(offset));
      return false;
    }
    uint64_t last = geometry.clusterOf(offset + bytes - 1);
    for (uint64_t cluster = geometry.clusterOf(offset); cluster <= last; cluster++) {
      if (!isInWindow(cluster)) continue;
      uint16_t& used = usage[cluster - window];
      if (used < UINT16_MAX) used++;
    }
    return true;
  }
  bool isInWindow(uint64_t cluster) const {
    return cluster >= window && cluster - window < usage.size();
  }

  void countAll() {
    tablesSeen = 0;
    count(0, geometry.clusterBytes());
    countL1(header.l1Offset, l1, header.l1Entries, true);
    countSnapshots();
    count(header.refcountTableOffset, counts.tableBytes());
    counts.forEachBlock([this](uint64_t offset, bool sound) {
      if (!sound) return noteOnce(Flaw::REFCOUNT_BLOCK, geometry.clusterOf(offset));
      uint64_t cluster = geometry.clusterOf(offset);
      count(offset, geometry.clusterBytes());
      if (!repairing && isInWindow(cluster) && usage[cluster - window] != 1) {
        note(Flaw::SHARED_BLOCK, cluster, counts.get(cluster), usage[cluster - window]);
      }
    });
  }

  void countSnapshots() {
    uint64_t end = header.snapshotsOffset;
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] {
                   forEachSnapshot(file, header, [&](const SnapshotTables& snapshot) {
                     auto entries = loadL1(snapshot.l1Offset, snapshot.l1Entries);
                     countL1(snapshot.l1Offset, entries, snapshot.l1Entries, false);
                     end = snapshot.end;
                   });
                 })) {
      if (strstr(exception->getDescription().cStr(), "TRP-blk-023") == nullptr)
        kj::throwFatalException(kj::mv(*exception));
      noteOnce(Flaw::SNAPSHOT, geometry.clusterOf(end));
    }
    count(header.snapshotsOffset, end - header.snapshotsOffset);
  }

  void countL1(uint64_t offset, const AlignedBytes& entries, uint32_t entryCount, bool isActive) {
    count(offset, uint64_t(entryCount) * 8);
    for (uint32_t i = 0; i < entryCount; i++) {
      uint64_t entry = load64(entries.begin() + uint64_t(i) * 8);
      if (entry == 0) continue;
      if (isActive) tablesSeen++;
      progress(kj::min(window / usage.size() * tablesPerPass + tablesSeen, passes * tablesPerPass),
               passes * tablesPerPass);
      countTable(entry, isActive);
    }
  }

  void countTable(uint64_t l1Entry, bool isActive) {
    uint64_t place = l1Entry & OFFSET_MASK;
    uint64_t cluster = geometry.clusterOf(place);
    if (l1Entry & L1_RESERVED) noteOnce(Flaw::RESERVED_BITS, cluster);
    bool isInside = count(place, geometry.clusterBytes());
    if (place == 0 || !geometry.isAligned(place)) return noteOnce(Flaw::MISALIGNED, cluster);
    if (!isInside) return;
    if (isActive) checkCopied(l1Entry, cluster);
    requireRead(readFully(file, table.all(), place), "L2 table");
    for (size_t at = 0; at < table.size(); at += 8)
      countEntry(load64(table.begin() + at), isActive);
  }

  void countEntry(uint64_t entry, bool isActive) {
    if (entry == 0) return;
    if (entry & COMPRESSED) {
      auto extent = compressedExtent(entry, geometry);
      if (entry & COPIED) noteOnce(Flaw::COPIED_FLAG, geometry.clusterOf(extent.offset));
      count(extent.offset, extent.bytes);
      if (isActive && isFirstPass()) result.allocatedClusters++, result.compressedClusters++;
      return;
    }
    uint64_t place = entry & OFFSET_MASK;
    uint64_t cluster = geometry.clusterOf(place);
    if (entry & L2_RESERVED) noteOnce(Flaw::RESERVED_BITS, cluster);
    if (place == 0) return;
    if (!geometry.isAligned(place)) noteOnce(Flaw::MISALIGNED, cluster);
    count(place, geometry.clusterBytes());
    if (!isActive || !isFirstPass()) return;
    result.allocatedClusters++;
    checkCopied(entry, cluster);
  }

  void checkCopied(uint64_t entry, uint64_t cluster) {
    if (!isFirstPass()) return;
    uint64_t counted = counts.get(cluster);
    bool saysCopied = entry & COPIED;
    if ((counted == 1) != saysCopied) note(Flaw::COPIED_FLAG, cluster, counted);
  }

  // visit(cluster, counted, used) for each in the window whose count is not right.
  template <typename Visit>
  void forDifferences(Visit&& visit) {
    for (uint64_t i = 0; i < usage.size() && window + i <= clusters; i++) {
      uint64_t cluster = window + i;
      uint64_t used = usage[i];
      // Behind the end only what an entry reaches halfway is looked at.
      if (cluster == clusters && used == 0) break;
      uint64_t counted = counts.get(cluster);
      if (counted > 0 || used > 0) result.endOffset = (cluster + 1) << geometry.clusterBits;
      if (counted == used || (used == UINT16_MAX && counted > used)) continue;
      visit(cluster, counted, used);
    }
  }

  void compare() {
    forDifferences([this](uint64_t cluster, uint64_t counted, uint64_t used) {
      note(counted < used ? Flaw::COUNTED_TOO_LOW : Flaw::LEAKED, cluster, counted, used);
    });
  }

  // Counts first: with a flag that is missing a cluster is copied once more than it had to be, with
  // one too many it is overwritten for two.
  void repairLeaks() {
    repairing = true;
    dropAutoclear();
    forWindows([this] {
      forDifferences([this](uint64_t cluster, uint64_t counted, uint64_t used) {
        if (counted < used) return;
        counts.lower(cluster, used);
        result.repairedLeaks++;
      });
    });
    counts.writeBack();
    requireWritten(file.sync());
    setCopied();
    requireWritten(file.sync());
    result.leaks -= kj::min(result.leaks, result.repairedLeaks);
  }

  // Features that whoever writes without knowing them has to declare gone.
  void dropAutoclear() {
    if (header.autoclear == 0) return;
    AlignedBytes start(kj::max(512u, file.blockBytes()));
    requireRead(readFully(file, start.all(), 0), "header");
    HeaderBlock block(file, start.all());
    store64(block.fields() + AT_AUTOCLEAR, 0);
    requireWritten(block.write());
    requireWritten(file.sync());
  }

  void setCopied() {
    bool changed = false;
    for (uint32_t i = 0; i < header.l1Entries; i++) {
      kj::byte* at = l1.begin() + uint64_t(i) * 8;
      uint64_t place = load64(at) & OFFSET_MASK;
      if (place == 0) continue;
      requireRead(readFully(file, table.all(), place), "L2 table");
      table.clean();
      for (size_t j = 0; j < table.size(); j += 8) {
        if (markIfCopied(table.begin() + j)) table.touch(j, 8);
      }
      if (table.isDirty()) requireWritten(writeFully(file, table.all(), place));
      if (markIfCopied(at)) changed = true;
    }
    if (changed) requireWritten(writeFully(file, l1.all(), header.l1Offset));
  }

  bool markIfCopied(kj::byte* at) {
    uint64_t entry = load64(at);
    uint64_t place = entry & OFFSET_MASK;
    if ((entry & (COMPRESSED | COPIED)) || place == 0) return false;
    if (counts.get(geometry.clusterOf(place)) != 1) return false;
    store64(at, entry | COPIED);
    return true;
  }

  ImageFile& file;
  const Header& header;
  const Geometry geometry;
  const uint64_t fileBytes;
  const uint64_t clusters;
  kj::FunctionParam<void(uint64_t, uint64_t)>& progress;
  CheckedCounts counts;
  kj::Array<uint16_t> usage;  // of the clusters from `window` on
  uint64_t window = 0;
  AlignedBytes l1;
  AlignedBytes table;
  CheckResult result;
  bool repairing = false;
  uint64_t passes = 1;
  uint64_t tablesPerPass = 0;
  uint64_t tablesSeen = 0;
};

}  // namespace

CheckResult check(ImageFile& file, const Header& header, Repair repair,
                  kj::FunctionParam<void(uint64_t, uint64_t)> progress) {
  return checkInWindows(file, header, repair, WINDOW_CLUSTERS, kj::mv(progress));
}

CheckResult checkInWindows(ImageFile& file, const Header& header, Repair repair,
                           uint64_t windowClusters,
                           kj::FunctionParam<void(uint64_t, uint64_t)> progress) {
  KJ_REQUIRE(!(header.autoclear & AUTOCLEAR_BITMAPS),
             "TRP-blk-021: the qcow2 image has bitmaps, which are not checked here; "
             "`qemu-img check` does it");
  uint64_t clusters = header.geometry.clustersFor(file.size());
  KJ_REQUIRE(clusters <= MOST_CLUSTERS,
             "TRP-blk-025: the file of the qcow2 image has more clusters than can be checked",
             clusters);
  return Check(file, header, windowClusters, progress).run(repair);
}

}  // namespace troupe::blk::qcow2
