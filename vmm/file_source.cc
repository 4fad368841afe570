#include "vmm/file_source.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "vmm/error_codes.h"
#include "vmm/quote.h"
#include "vmm/user_error.h"

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
  if ((error == EACCES || error == EROFS) && (flags & O_RDWR)) {
    report.advice("try", "add ,ro to the disk if the guest shall only read it");
  }
  report.advice("see", kj::str("ls -l ", escape(see))).raise();
}

}  // namespace troupe
