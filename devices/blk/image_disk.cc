#include "devices/blk/image_disk.h"

#include <kj/debug.h>
#include <kj/vector.h>

namespace troupe::blk {

ImageDisk::ImageDisk(const Disk& disk, kj::StringPtr path, kj::ArrayPtr<const Backing> backing,
                     kj::ArrayPtr<kj::byte> kept) {
  kj::Vector<kj::Own<Disk>> disks;
  kj::Vector<kj::Own<DiskFile>> made;
  kj::Vector<qcow2::ChainFile> chainFiles;
  made.add(kj::heap<DiskFile>(disk));
  chainFiles.add(qcow2::ChainFile{*made.back(), qcow2::ImageFormat::QCOW2, path});
  for (const Backing& below : backing) {
    auto contents =
        below.format == qcow2::ImageFormat::RAW ? Disk::Contents::BACKING : Disk::Contents::IMAGE;
    disks.add(kj::heap<Disk>(below.fd, Disk::Access::READ_ONLY, disk.ringRules(), contents));
    made.add(kj::heap<DiskFile>(*disks.back()));
    chainFiles.add(qcow2::ChainFile{*made.back(), below.format, below.path});
  }
  backingDisks = disks.releaseAsArray();
  files = made.releaseAsArray();
  bool readOnly = disk.shape().readOnly;
  auto access = readOnly ? qcow2::Access::READ_ONLY : qcow2::Access::READ_WRITE;
  if (kept != nullptr) journal.emplace(kept);
  chain = qcow2::openChain(chainFiles, access, journal);
  uint32_t block = disk.shape().blockBytes;
  bytes = chain->size() - chain->size() % block;
  KJ_REQUIRE(bytes > 0,
             "TRP-blk-005: the disk is smaller than one block of what O_DIRECT can transfer; "
             "open it without direct",
             chain->size(), block);
  fixedShape = DiskShape{bytes, block, readOnly};
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
