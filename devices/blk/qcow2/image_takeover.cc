#include <errno.h>
#include <kj/debug.h>

#include "devices/blk/qcow2/image.h"

namespace troupe::blk::qcow2 {
namespace {

void require(int error) {
  KJ_REQUIRE(error == 0, "TRP-blk-030: what was written to a qcow2 image before cannot be saved",
             strerror(-error));
}

[[noreturn]] void refuse(kj::StringPtr why, const MappingJournal::Record& record) {
  KJ_FAIL_REQUIRE("TRP-blk-029: what the process before left of an image's mappings makes no sense",
                  why, record.cluster, kj::hex(record.entry));
}

}  // namespace

// Goes on where a process stopped without closing the image, if it did.
//
// The file is sound, whatever the moment, but it lacks the mappings since the last commit, and the
// process may have been anywhere in that commit. So first the file is counted anew: then each
// cluster that none of its tables leads to has the count 0, whatever was half written before, and
// nothing has leaked. Only such clusters are taken for the missing mappings. These are saved at
// once, so that what no longer has a mapping is not used again while the disk still has one for it.
// Cut short, all of it is done again.
void Image::takeOver(MappingJournal& kept) {
  auto left = kept.recover();
  // What is counted has to be what the disk has.
  if (left != nullptr) require(file.sync());
  if (left != nullptr || head.isDirty()) repair();
  KJ_IF_MAYBE (records, left) {
    if (records->size() > 0) replay(*records);
    kept.close();
  }
  journal = kept;
}

void Image::replay(kj::ArrayPtr<const MappingJournal::Record> records) {
  require(beginWriting());
  for (auto& record : records) {
    // Of a growth that did not come to its end, and is none.
    if (record.cluster >= geometry.clustersFor(size())) continue;
    replay(record);
  }
  require(close());
}

void Image::replay(const MappingJournal::Record& record) {
  uint64_t offset = record.cluster << geometry.clusterBits;
  Slot slot;
  require(slotFor(offset, slot));
  if (!slices.isChangeable(slot)) refuse("its table is not to be changed", record);
  uint32_t index = positionOf(offset).index;
  uint64_t old = slices.get(slot, index);
  uint64_t entry = record.entry;
  if (((old ^ entry) & ~(COPIED | VERIFIED)) == 0) return;  // a commit came so far

  uint64_t place = placeOf(entry);
  uint64_t allowed = COPIED | OFFSET_MASK | (head.version == 3 ? ALL_ZEROES : 0);
  if ((entry & ~allowed) != 0 || !geometry.isAligned(place)) refuse("no entry of ours", record);
  bool keepsPlace = place != 0 && !(old & COMPRESSED) && place == placeOf(old);
  if (keepsPlace) {
    bool shared;
    if (verify(old, offset, shared) != 0 || shared) refuse("its place is others' too", record);
  } else if (place != 0) {
    claim(record);
  }
  require(ownTable(l1IndexOf(offset)));
  change(slot, index, (entry & ~COPIED) | (place == 0 ? 0 : COPIED));
  if (!keepsPlace) unmap(old);
}

// Takes the cluster that a record names, if nobody else has it.
void Image::claim(const MappingJournal::Record& record) {
  uint64_t place = placeOf(record.entry);
  uint64_t cluster = geometry.clusterOf(place);
  // Tables that are made meanwhile come behind the file, where no such cluster is.
  if (place + geometry.clusterBytes() > fileEnd.load() || map.contains(cluster)) {
    refuse("its place is none for the guest's bytes", record);
  }
  uint64_t count;
  require(counts().get(cluster, count));
  if (count != 0) refuse("its place is in use", record);
  require(counts().ensureBlock(cluster));
  require(counts().set(cluster, 1));
}

}  // namespace troupe::blk::qcow2
