#pragma once

#include <kj/io.h>
#include <kj/refcount.h>

#include "protos/handle.capnp.h"

namespace troupe {

// How many of something there are.
struct Count: public kj::Refcounted {
  uint32_t number = 0;
};

// A file descriptor on its way to who may keep it for as long as he likes: counted until he drops
// it. Owns the fd.
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

}  // namespace troupe
