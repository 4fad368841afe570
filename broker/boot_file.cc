#include "broker/boot_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "broker/refusal.h"

namespace troupe::broker {
namespace {

kj::StringPtr kindOf(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISCHR(mode)) return "a character device";
  if (S_ISBLK(mode)) return "a block device";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "something else";
}

}  // namespace

BootFile::BootFile(int fd, kj::StringPtr what) : fd(fd), name(what) {
  struct stat status;
  if (fstat(fd, &status) < 0) {
    refuse("TRP-boot-012: the ", name, " cannot be read: ", strerror(errno));
  }
  if (!S_ISREG(status.st_mode)) {
    refuse("TRP-boot-001: the ", name, " is ", kindOf(status.st_mode), ", not a file");
  }
  bytes = status.st_size;
  if (bytes == 0) refuse("TRP-boot-002: the ", name, " is empty");
}

void BootFile::read(uint64_t offset, kj::ArrayPtr<kj::byte> target) const {
  if (offset > bytes || target.size() > bytes - offset) {
    refuse("TRP-boot-003: the ", name, " is cut short: it has ", bytes, " bytes and speaks of ",
           target.size(), " at offset ", offset);
  }
  while (target.size() > 0) {
    ssize_t got = pread(fd, target.begin(), target.size(), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse("TRP-boot-012: the ", name, " cannot be read: ", strerror(errno));
    if (got == 0) {
      refuse("TRP-boot-003: the ", name, " is cut short: it ends at ", offset, " and had ", bytes,
             " bytes before");
    }
    offset += got;
    target = target.slice(got, target.size());
  }
}

}  // namespace troupe::broker
