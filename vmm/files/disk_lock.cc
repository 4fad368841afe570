#include "vmm/files/disk_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr kj::Duration STEP = 5 * kj::MILLISECONDS;
constexpr kj::Duration LOCK_PATIENCE = 300 * kj::MILLISECONDS;
constexpr kj::Duration RELEASE_PATIENCE = 2 * kj::SECONDS;

// 0 or an errno.
int tryLock(int fd, bool readOnly) {
  struct flock lock = {};
  lock.l_type = readOnly ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

kj::StringPtr whyInUse(const LockedFile& file) {
  if (file.isBacking) {
    return " is in use by something that may write it; what lies below an image must stay as it is"_kj;
  }
  if (!file.readOnly) return " is in use; a disk that is written belongs to one VM alone"_kj;
  return " is in use by something that may write it; it can be shared only while all open it with "
         ",ro or ,volatile"_kj;
}

[[noreturn]] void refuse(const LockedFile& file, int error) {
  auto what = kj::str(file.isBacking ? "backing file " : "disk ", quote(file.path));
  if (error != EAGAIN && error != EACCES) {
    UserError(codes::FILE_UNREADABLE, kj::str(what, " cannot be locked: ", errnoText(error)))
        .raise();
  }
  UserError(codes::DISK_IN_USE, kj::str(what, whyInUse(file)))
      .advice("see", "troupe list")
      .advice("see", kj::str("lslocks --output COMMAND,PID,MODE,PATH"))
      .raise();
}

// Resolves with 0 or an errno.
kj::Promise<int> lockWithin(kj::Timer& timer, int fd, bool readOnly, kj::Duration patience) {
  int error = tryLock(fd, readOnly);
  if (error != EAGAIN || patience <= 0 * kj::SECONDS) return error;
  return timer.afterDelay(STEP).then([&timer, fd, readOnly, patience]() {
    return lockWithin(timer, fd, readOnly, patience - STEP);
  });
}

}  // namespace

void lockFile(const LockedFile& file) {
  for (auto waited = 0 * kj::SECONDS;; waited += STEP) {
    int error = tryLock(file.fd, file.readOnly);
    if (error == 0) return;
    if (error != EAGAIN || waited >= LOCK_PATIENCE) refuse(file, error);
    usleep(useconds_t(STEP / kj::MICROSECONDS));
  }
}

kj::Promise<void> lockFile(kj::Timer& timer, LockedFile file) {
  return lockWithin(timer, file.fd, file.readOnly, LOCK_PATIENCE).then([file](int error) {
    if (error != 0) refuse(file, error);
  });
}

kj::Promise<void> releaseFile(kj::Timer& timer, kj::AutoCloseFd fd) {
  // A second open file of the same disk gets the lock once nothing of the first is left.
  bool readOnly = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
  if (readOnly) return kj::READY_NOW;
  auto path = kj::str("/proc/self/fd/", fd.get());
  int raw = open(path.cStr(), O_RDWR | O_CLOEXEC);
  fd = nullptr;
  if (raw < 0) return kj::READY_NOW;
  kj::AutoCloseFd probe(raw);
  return lockWithin(timer, raw, false, RELEASE_PATIENCE).ignoreResult().attach(kj::mv(probe));
}

}  // namespace troupe
