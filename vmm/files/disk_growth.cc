#include "vmm/files/disk_growth.h"

#include <errno.h>
#include <kj/debug.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/number_text.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr uint64_t SECTOR = 512;

[[noreturn]] void refuse(const DiskPlan& disk, kj::StringPtr why) {
  UserError(codes::VM_DISK_RESIZE, kj::str("disk ", quote(disk.id), " ", why)).raise();
}

uint64_t deviceSize(const DiskPlan& disk, int fd, uint64_t bytes) {
  if (bytes != 0) refuse(disk, "is a block device, which has the size it has: give no SIZE");
  uint64_t now;
  KJ_SYSCALL(ioctl(fd, BLKGETSIZE64, &now));
  return now;
}

void growRawFile(const DiskPlan& disk, int fd, uint64_t now, uint64_t bytes) {
  if (bytes < now) {
    refuse(disk, kj::str("has ", now, " bytes; it becomes larger, never smaller"));
  }
  if (ftruncate(fd, bytes) == 0) return;
  int error = errno;
  UserError(codes::DISK_NOT_GROWN, kj::str("the file of disk ", quote(disk.id),
                                           " cannot be made larger: ", errnoText(error)))
      .raise();
}

}  // namespace

uint64_t growDiskFile(const DiskPlan& disk, int fd, uint64_t bytes) {
  if (disk.isVolatile) refuse(disk, "is volatile; it keeps its size");
  if (disk.readOnly) refuse(disk, "is read-only; it keeps its size");
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info));
  if (S_ISBLK(info.st_mode)) return deviceSize(disk, fd, bytes);
  if (bytes == 0) refuse(disk, "is a file: say which size it is to have");
  if (bytes % SECTOR != 0) {
    refuse(disk, kj::str("cannot have ", bytes, " bytes; a size is a multiple of 512"));
  }
  if (bytes > INT64_MAX) refuse(disk, kj::str("cannot have ", bytes, " bytes; that is too much"));
  if (disk.format == DiskFormat::RAW) growRawFile(disk, fd, info.st_size, bytes);
  return bytes;
}

}  // namespace troupe
