#pragma once

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

}  // namespace troupe
