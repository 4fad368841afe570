#include "vmm/files/trial_file.h"

#include <kj/debug.h>
#include <sys/stat.h>
#include <unistd.h>

namespace troupe {

TrialFile::TrialFile(kj::StringPtr path, int fd) : path(kj::heapString(path)) {
  struct stat info;
  KJ_SYSCALL(fstat(fd, &info));
  device = info.st_dev;
  inode = info.st_ino;
}

TrialFile::~TrialFile() noexcept(false) {
  struct stat info;
  if (kept || lstat(path.cStr(), &info) != 0) return;
  // What somebody has put in its place is not ours.
  if (info.st_dev == device && info.st_ino == inode) unlink(path.cStr());
}

}  // namespace troupe
