#pragma once

#include <fcntl.h>
#include <kj/common.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe::broker {

// Where the fds the broker keeps go: its filters name fds by number, so each has the number that
// the broker's profile gives it.
class FdTable {
 public:
  // Duplicates `fd` to the number of the `index`-th `name`.
  virtual kj::AutoCloseFd place(kj::StringPtr name, uint32_t index, int fd) = 0;
};

// Takes any free number: without a jail, in tests.
class UnplacedFds final: public FdTable {
 public:
  kj::AutoCloseFd place(kj::StringPtr, uint32_t, int fd) override {
    int copy;
    KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 0));
    return kj::AutoCloseFd(copy);
  }
};

}  // namespace troupe::broker
