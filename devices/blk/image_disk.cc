#include "devices/blk/image_disk.h"

#include <kj/debug.h>
#include <kj/vector.h>

namespace troupe::blk {

ImageDisk::ImageDisk(Disk& disk, kj::StringPtr path, kj::ArrayPtr<const Backing> backing,
                     kj::ArrayPtr<kj::byte> kept, Owner ownerParam)
    : disk(disk), owner(disk.shape().readOnly ? Owner::THIS_PROCESS : ownerParam) {
  kj::Vector<kj::Own<Disk>> disks;
  kj::Vector<kj::Own<DiskFile>> made;
  kj::Vector<qcow2::ChainFile> listed;
  made.add(kj::heap<DiskFile>(disk));
  listed.add(qcow2::ChainFile{*made.back(), qcow2::ImageFormat::QCOW2, path});
  for (const Backing& below : backing) {
    auto contents =
        below.format == qcow2::ImageFormat::RAW ? Disk::Contents::BACKING : Disk::Contents::IMAGE;
    disks.add(kj::heap<Disk>(below.fd, Disk::Access::READ_ONLY, disk.ringRules(), contents));
    made.add(kj::heap<DiskFile>(*disks.back()));
    listed.add(qcow2::ChainFile{*made.back(), below.format, below.path});
  }
  backingDisks = disks.releaseAsArray();
  files = made.releaseAsArray();
  chainFiles = listed.releaseAsArray();
  if (kept != nullptr) journal.emplace(kept);
  bool readOnly = disk.shape().readOnly || owner == Owner::ONE_BEFORE;
  open(readOnly ? qcow2::Access::READ_ONLY : qcow2::Access::READ_WRITE);
}

void ImageDisk::open(qcow2::Access access) {
  bool isWritten = access == qcow2::Access::READ_WRITE;
  chain = qcow2::openChain(chainFiles, access,
                           isWritten ? journal.map([](auto& one) -> auto& { return one; })
                                     : kj::Maybe<qcow2::MappingJournal&>(nullptr));
  uint32_t block = disk.shape().blockBytes;
  bytes = chain->size() - chain->size() % block;
  KJ_REQUIRE(bytes > 0,
             "TRP-blk-005: the disk is smaller than one block of what O_DIRECT can transfer; "
             "open it without direct",
             chain->size(), block);
  fixedShape = DiskShape{bytes, block, disk.shape().readOnly};
}

void ImageDisk::takeOver() {
  if (owner == Owner::THIS_PROCESS) return;
  owner = Owner::THIS_PROCESS;
  open(qcow2::Access::READ_WRITE);
}

int ImageDisk::grow(uint64_t newBytes) {
  // Counts as a queue, or what a table leaves behind would stay until one rests.
  queueBegins();
  KJ_DEFER(queueRests());
  int error = chain->grow(newBytes);
  if (error == 0) bytes.store(chain->size() - chain->size() % fixedShape.blockBytes);
  return error;
}

}  // namespace troupe::blk
