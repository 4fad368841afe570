#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/debug.h>
#include <kj/memory.h>
#include <kj/vector.h>

#include <atomic>
#include <cstdint>
#include <mutex>

#include "devices/blk/qcow2/decompressor.h"
#include "devices/blk/qcow2/header.h"
#include "devices/blk/qcow2/in_flight.h"
#include "devices/blk/qcow2/layer.h"
#include "devices/blk/qcow2/mapping_journal.h"
#include "devices/blk/qcow2/metadata_map.h"
#include "devices/blk/qcow2/refcounts.h"
#include "devices/blk/qcow2/slice_cache.h"
#include "devices/blk/qcow2/snapshots.h"

namespace troupe::blk::qcow2 {

// A qcow2 image of version 2 or 3, and what lies below it.
//
// Bytes that are allocated are moved by whoever asks: locate() and locateForWrite() tell where they
// are, without a lock. Everything else waits: it has one lock, and moves the bytes itself.
//
// Mappings change in memory first, and only once their bytes are written. commit() takes them to
// the disk in the order that leaves a sound image wherever it is cut: bytes and counts, then L2
// tables, then the L1 table, each synced before the next; then only are counts of what was unmapped
// lowered. So a crash costs what no flush has returned for, and space. With lazy refcounts, counts
// wait for close(), and the dirty bit says so.
//
// Nothing in the file is believed: an entry is used for writing only after its cluster was found
// inside the file, counted once, and none of the image's tables. Results are bytes, 0, or -errno;
// -EIO is also an image that contradicts itself, which is then left as it is.
class Image final: public Layer {
 public:
  // `index`: of `file` in the chain, for extents. With READ_WRITE repairs what a dirty image left
  // behind, and `kept` is where it notes what its successor is to know: what its predecessor left
  // there is saved at once. Throws TRP-blk-020 to 030. `file` and `kept` must outlive this.
  Image(ImageFile& file, uint8_t index, Header&& header, kj::ArrayPtr<const kj::byte> start,
        Access access, kj::Maybe<kj::Own<Layer>> backing,
        kj::Maybe<MappingJournal&> kept = nullptr);
  KJ_DISALLOW_COPY(Image);

  uint64_t size() const override { return diskBytes.load(std::memory_order_relaxed); }
  Extent locate(uint64_t offset, uint64_t bytes) const override;
  int prepare(uint64_t offset) override;
  int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override;

  // DATA where the bytes may be overwritten in place, otherwise SLOW.
  Extent locateForWrite(uint64_t offset, uint64_t bytes) const;
  // For SLOW: writes one byte or more; 0 says that the place can be located now. Not durable. At
  // most IOV_MAX - 2 pieces.
  int64_t write(kj::ArrayPtr<const iovec> pieces, uint64_t offset);

  // Whether something beside the bytes has to reach the disk for a flush.
  bool needsCommit() const { return unsaved.load(std::memory_order_acquire); }
  // Returns when all that was written before is on stable storage.
  int flush();

  // Makes whole clusters of the range absent; other bytes stay as they are.
  int discard(uint64_t offset, uint64_t bytes);
  // `mayUnmap`: the space may be given back.
  enum class Space { KEEP, GIVE_BACK };
  int writeZeroes(uint64_t offset, uint64_t bytes, Space space);
  // Makes the disk larger; what is new is zeroes. -EINVAL if it would be smaller.
  int grow(uint64_t bytes);

  // Takes everything to the disk and marks the image clean, when nobody moves bytes. It can be
  // used on.
  int close();

  // Every transfer to or from a place located here is counted from before locate() on.
  InFlight& inFlight() { return transfers; }

  const Header& header() const { return head; }
  Access access() const { return mode; }

 private:
  using Lock = std::lock_guard<std::mutex>;
  using Slot = SliceCache::Slot;

  // What an entry of an L2 table says.
  enum class Kind : uint8_t { ABSENT, ZEROES, DATA, COMPRESSED, UNSOUND };
  Kind kindOf(uint64_t entry) const;
  static uint64_t placeOf(uint64_t entry) { return entry & OFFSET_MASK; }

  // A cluster's place in the tables.
  struct Position {
    uint64_t slice;
    uint32_t index;
  };
  Position positionOf(uint64_t offset) const {
    uint64_t cluster = offset >> geometry.clusterBits;
    return {cluster >> sliceBits, uint32_t(cluster & ((1u << sliceBits) - 1))};
  }
  bool lookup(uint64_t offset, uint64_t& entry) const;
  template <typename Same>
  uint64_t runBytes(uint64_t offset, uint64_t bytes, Same&& same) const;

  // image_read.cc; under the lock.
  int slotFor(uint64_t offset, Slot& slot);
  int loadSlice(uint64_t slice, Slot slot);
  int64_t readHere(kj::ArrayPtr<const iovec> pieces, uint64_t bytes, uint64_t place);
  int64_t readCompressed(kj::ArrayPtr<const iovec> pieces, uint64_t bytes, uint64_t offset,
                         uint64_t entry);
  int readCurrent(uint64_t entry, kj::ArrayPtr<kj::byte> bytes, uint64_t offset);

  // image_open.cc
  void claimSnapshots();
  void claimSnapshotL2Tables(const SnapshotTables& snapshot);
  void claimActiveL2Tables();
  // image_repair.cc
  void repair();
  // image_takeover.cc
  void takeOver(MappingJournal& kept);
  void replay(kj::ArrayPtr<const MappingJournal::Record> records);
  void replay(const MappingJournal::Record& record);
  void claim(const MappingJournal::Record& record);

  // image_write.cc; under the lock.
  int beginWriting();
  uint64_t l1IndexOf(uint64_t offset) const {
    return offset >> (geometry.clusterBits + geometry.l2Bits());
  }
  int tableIsShared(uint64_t l1Index, bool& shared);
  int ownTable(uint64_t l1Index);
  int verify(uint64_t entry, uint64_t offset, bool& shared);
  int64_t writeLocked(kj::ArrayPtr<const iovec> pieces, uint64_t offset);
  uint64_t clustersToAllocate(Slot slot, uint64_t offset, uint64_t bytes);
  // Writes the clusters `taken`: bytes [offset, end) out of `pieces`, the rest as it is.
  int writeClusters(kj::ArrayPtr<const iovec> pieces, uint64_t offset, uint64_t end, Slot slot,
                    const Refcounts::Taken& taken);
  bool readsAsZeroes(uint64_t entry, uint64_t offset) const;
  // The file's space that `entry` names is not needed by it any more.
  void unmap(uint64_t entry);
  void release(uint64_t firstCluster, uint64_t count);
  void change(Slot slot, uint32_t index, uint64_t entry);

  // image_zero.cc; under the lock where not public.
  enum class Absence { DISCARD, ZEROES_KEEP, ZEROES_GIVE_BACK };
  int clearRange(uint64_t offset, uint64_t end, Absence absence, uint64_t& reached);
  int clearCluster(Slot slot, uint64_t offset, Absence absence);
  int zeroBytes(uint64_t offset, uint64_t bytes);
  int growL1(uint64_t entries);
  void undoAppend(uint64_t first, uint64_t count);

  // image_commit.cc; under the lock.
  int commit();
  int writeMappings();
  int writeSlice(Slot slot);
  int writeHeader();
  void reclaim();
  Refcounts& counts() { return *KJ_ASSERT_NONNULL(refcounts); }

  ImageFile& file;
  const uint8_t index;
  Header head;
  HeaderBlock headerBlock;
  const Access mode;
  const Geometry geometry;
  const uint32_t sliceBits;  // of the number of entries in a slice
  const uint64_t sliceBytes;
  kj::Maybe<kj::Own<Layer>> backing;
  kj::Own<Decompressor> decompressor;
  InFlight transfers;

  std::atomic<uint64_t> diskBytes;
  std::atomic<uint64_t> fileEnd;  // what is known to be in the file
  std::atomic<bool> unsaved{false};
  SliceCache slices;

  std::mutex mutex;  // of everything below, and of changes to what is above
  AlignedBytes l1;
  AlignedBytes sliceBuffer;
  AlignedBytes clusterBuffer;     // what was unpacked last
  AlignedBytes compressedBuffer;  // what it was unpacked from
  uint64_t unpackedEntry = 0;
  AlignedBytes headPad;  // bytes of a cluster that a write does not cover
  AlignedBytes tailPad;
  kj::Array<iovec> writePieces;

  MetadataMap map;
  kj::Maybe<kj::Own<Refcounts>> refcounts;  // none if the image is only read
  kj::Vector<bool> ownedTables;             // by L1 entry: known to be used once
  bool writing = false;                     // beginWriting() was done
  kj::Maybe<MappingJournal&> journal;       // for the process after this one

  // Clusters that no mapping in memory uses any more. First the change has to be on the disk, then
  // those who may know the old mapping have to be done.
  struct Released {
    uint64_t first;
    uint64_t count;
    uint64_t changes;  // of InFlight, when the mapping was on the disk
  };
  kj::Vector<Released> releasedUnsaved;
  kj::Vector<Released> releasedSaved;
};

// Bits of an entry in memory that the file does not have: the reserved bits 1 and 2.
constexpr uint64_t VERIFIED = 1 << 1;  // found to be fit for writing in place
constexpr uint64_t UNSOUND_ENTRY = 1 << 2;

}  // namespace troupe::blk::qcow2
