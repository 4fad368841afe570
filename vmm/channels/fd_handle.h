#pragma once

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/refcount.h>

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

// How many of something there are.
struct Count: public kj::Refcounted {
  uint32_t number = 0;
};

// The same on its way to who may keep it for as long as he likes: counted until he drops it.
class CountedHandle final: public Handle::Server {
 public:
  CountedHandle(kj::AutoCloseFd fd, kj::Own<Count> count) : fd(kj::mv(fd)), count(kj::mv(count)) {
    ++this->count->number;
  }
  ~CountedHandle() noexcept(false) { --count->number; }
  KJ_DISALLOW_COPY(CountedHandle);
  kj::Maybe<int> getFd() override { return fd.get(); }

 private:
  kj::AutoCloseFd fd;
  kj::Own<Count> count;  // may outlive who counts
};

// A handle to a copy of `fd`, which stays the caller's.
inline Handle::Client handleToCopy(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return kj::heap<FdHandle>(kj::AutoCloseFd(copy));
}

}  // namespace troupe
