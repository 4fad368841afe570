#pragma once

#include <kj/common.h>

#include <cstdint>

#include "devices/blk/disk.h"
#include "devices/blk/qcow2/image_file.h"

namespace troupe::blk {

// A disk's file as the format library sees it: plain system calls, each waited for.
class DiskFile final: public qcow2::ImageFile {
 public:
  // `disk` must outlive it.
  explicit DiskFile(const Disk& disk) : disk(disk) {}

  int64_t read(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override;
  int64_t write(kj::ArrayPtr<const iovec> pieces, uint64_t offset) override;
  int sync() override;
  int truncate(uint64_t bytes) override;
  int punch(uint64_t offset, uint64_t bytes) override;
  // As it was when the disk was opened.
  uint64_t size() override { return disk.shape().bytes; }
  uint32_t blockBytes() const override;

 private:
  bool needsCopy(kj::ArrayPtr<const iovec> pieces) const;

  const Disk& disk;
};

}  // namespace troupe::blk
