#pragma once

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>

#include "protos/handle.capnp.h"

namespace troupe {

// A file descriptor on its way to another actor (protos/handle.capnp). Owns the fd.
class FdHandle final: public Handle::Server {
 public:
  explicit FdHandle(kj::AutoCloseFd fd) : fd(kj::mv(fd)) {}
  kj::Maybe<int> getFd() override { return fd.get(); }

 private:
  kj::AutoCloseFd fd;
};

// The same with an fd that stays the lender's, and open for as long as this is held.
class LentFdHandle final: public Handle::Server {
 public:
  explicit LentFdHandle(int fd) : fd(fd) {}
  kj::Maybe<int> getFd() override { return fd; }

 private:
  int fd;
};

// A handle to a copy of `fd`, which stays the caller's.
inline Handle::Client handleToCopy(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return kj::heap<FdHandle>(kj::AutoCloseFd(copy));
}

}  // namespace troupe
