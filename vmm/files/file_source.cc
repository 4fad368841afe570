#include "vmm/files/file_source.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

kj::AutoCloseFd HostFiles::open(kj::StringPtr what, kj::StringPtr path, int flags) const {
  // O_NONBLOCK: a named pipe is refused by its kind, not waited for.
  int fd = ::open(path.cStr(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd >= 0) return kj::AutoCloseFd(fd);
  cannotOpen(what, path, flags, errno, path);
}

kj::Maybe<mode_t> HostFiles::kindOf(kj::StringPtr, kj::StringPtr path) const {
  struct stat info;
  if (stat(path.cStr(), &info) < 0) return nullptr;
  return info.st_mode;
}

void cannotOpen(kj::StringPtr what, kj::StringPtr name, int flags, int error, kj::StringPtr see) {
  UserError report(codes::FILE_UNREADABLE,
                   kj::str(what, " ", quote(name), " cannot be opened",
                           (flags & O_RDWR) ? " for writing" : "", ": ", errnoText(error)));
  if (error == EINVAL && (flags & O_DIRECT)) {
    report.cause("its file system may not support direct access: leave out ,direct");
  }
  if ((error == EACCES || error == EROFS) && (flags & O_RDWR) && what == "disk") {
    report.advice("try", "add ,ro to the disk if the guest shall only read it");
  }
  bool isNewDisk = error == ENOENT && (flags & O_RDWR) && what == "disk";
  KJ_IF_MAYBE (equals, name.findFirst('=')) {
    if (isNewDisk)
      report.advice("try", kj::str("the path alone: --disk ", shellWord(name.slice(*equals + 1))));
  } else if (isNewDisk) {
    report.advice("make one", kj::str("troupe disk create ", shellWord(name), " 20G"));
  }
  bool hasNoFds = error == EMFILE || error == ENFILE;
  report
      .advice("see", hasNoFds ? kj::str("ulimit -n; cat /proc/sys/fs/file-nr")
                              : kj::str("ls -l ", shellWord(see)))
      .raise();
}

}  // namespace troupe
