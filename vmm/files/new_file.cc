#include "vmm/files/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe {

namespace {

constexpr mode_t MODE = 0644;  // less the umask, as for any file

enum class Found { NOTHING, LINK, OTHER };

Found lookAt(kj::StringPtr path) {
  struct stat info;
  if (lstat(path.cStr(), &info) != 0) return Found::NOTHING;
  return S_ISLNK(info.st_mode) ? Found::LINK : Found::OTHER;
}

kj::String folderOf(kj::StringPtr path) {
  KJ_IF_MAYBE (slash, path.findLast('/')) {
    return kj::heapString(path.begin(), *slash + 1);
  }
  return kj::heapString(".");
}

[[noreturn]] void refuseExisting(kj::StringPtr path) {
  UserError(codes::DISK_EXISTS, kj::str(quote(path), " exists; a disk is made anew only where ",
                                        "nothing is, or with --force in the place of a file"))
      .advice("see", kj::str("ls -l ", shellWord(path)))
      .raise();
}

kj::String behindLinks(kj::StringPtr path) {
  char* found = realpath(path.cStr(), nullptr);
  if (found == nullptr) return kj::heapString(path);  // what is missing is said when it is opened
  auto text = kj::heapString(found);
  free(found);
  return text;
}

// Whoever uses it has it locked.
OpenFile lockExisting(kj::StringPtr path) {
  DiskPlan plan = {};
  plan.path = kj::heapString(path);
  plan.format = DiskFormat::QCOW2;  // a regular file of whatever length
  return openDisk(plan);
}

}  // namespace

NewFile::NewFile(kj::StringPtr wanted, Existing existing) {
  if (wanted.size() == 0 || wanted.endsWith("/")) {
    UserError(codes::DISK_NOT_MADE,
              kj::str("a disk cannot be made at ", quote(wanted), ": that names no file"))
        .raise();
  }
  Found found = lookAt(wanted);
  if (found != Found::NOTHING && existing == Existing::REFUSE) refuseExisting(wanted);
  path = found == Found::LINK ? behindLinks(wanted) : kj::heapString(wanted);
  folder = folderOf(path);
  if (found != Found::NOTHING) replaced = lockExisting(path);
  int fd = open(folder.cStr(), O_TMPFILE | O_RDWR | O_CLOEXEC, MODE);
  if (fd >= 0) {
    file = kj::AutoCloseFd(fd);
  } else if (errno == EOPNOTSUPP || errno == EISDIR) {
    makeNamed();
  } else {
    failed("made", errno);
  }
}

NewFile::~NewFile() noexcept(false) {
  KJ_IF_MAYBE (name, ownName) unlink(name->cStr());
}

void NewFile::failed(kj::StringPtr doing, int error) const {
  UserError(codes::DISK_NOT_MADE,
            kj::str("disk ", quote(path), " cannot be ", doing, ": ", errnoText(error)))
      .advice("see", kj::str("ls -ld ", shellWord(folder), "; df -h ", shellWord(folder)))
      .raise();
}

kj::String NewFile::temporaryName() const {
  uint64_t number = 0;
  if (getrandom(&number, sizeof(number), 0) != sizeof(number)) number = getpid();
  return kj::str(folder, folder.endsWith("/") ? "" : "/", ".troupe-disk-", kj::hex(number));
}

void NewFile::makeNamed() {
  auto name = temporaryName();
  int fd = open(name.cStr(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, MODE);
  if (fd < 0) failed("made", errno);
  file = kj::AutoCloseFd(fd);
  ownName = kj::mv(name);
}

void NewFile::linkTo(kj::StringPtr name) {
  int done;
  KJ_IF_MAYBE (own, ownName) {
    done = link(own->cStr(), name.cStr());
  } else {
    auto self = kj::str("/proc/self/fd/", file.get());
    done = linkat(AT_FDCWD, self.cStr(), AT_FDCWD, name.cStr(), AT_SYMLINK_FOLLOW);
  }
  if (done == 0) return;
  if (errno == EEXIST) refuseExisting(name);
  failed("given its name", errno);
}

// What nobody else could read is not to be readable because it was made anew.
void NewFile::keepMode() {
  struct stat info;
  auto& old = KJ_ASSERT_NONNULL(replaced);
  if (fstat(old.fd, &info) != 0 || fchmod(file, info.st_mode & 0777) != 0) failed("made", errno);
}

void NewFile::publish() {
  if (replaced == nullptr) {
    linkTo(path);
  } else {
    keepMode();
    if (ownName == nullptr) {
      auto name = temporaryName();
      linkTo(name);
      ownName = kj::mv(name);
    }
    if (rename(KJ_ASSERT_NONNULL(ownName).cStr(), path.cStr()) != 0) failed("replaced", errno);
    ownName = nullptr;
  }
  int fd = open(folder.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  kj::AutoCloseFd closing(fd);
  fsync(fd);  // some file systems cannot, and then there is no more to be had
}

}  // namespace troupe
