#pragma once

#include <kj/array.h>
#include <kj/async.h>
#include <kj/common.h>
#include <kj/function.h>
#include <kj/refcount.h>
#include <sys/types.h>

#include "devices/virtio/vital_signs.h"

namespace troupe::console {

// Reads or writes one fd whose system calls may block, on a thread of its own.
//
// For standard input and output: their file descriptions are shared with the user's shell, so they
// cannot be made non-blocking; a regular file cannot be polled at all; and no poll tells how much a
// terminal takes before a write blocks. A thread that blocks harms nobody, and works for all of
// them.
class FdThread {
 public:
  enum class Direction { READ, WRITE };
  static constexpr size_t BUFFER_SIZE = 16384;

  // Starts the thread, "port-ioN", which calls `confine` (its filter) first, and returns when that
  // is done. `fd` is borrowed; `number`: of the process's threads.
  FdThread(int fd, Direction direction, uint32_t number, kj::Function<void()> confine);

  // Does not wait for a system call that blocks: its thread ends when the call does.
  ~FdThread() noexcept(false);
  KJ_DISALLOW_COPY(FdThread);

  // Has the thread show in these signs how it gets on: not how long a system call takes, which is
  // up to whoever reads or types.
  void showIn(const virtio::VitalSigns& signs);

  // The bytes to write, or those that were read. Not to be touched while a transfer is under way.
  kj::ArrayPtr<kj::byte> buffer();

  // One read or write of up to `size` bytes of buffer(). Resolves with what the system call
  // returned, or with -errno. One at a time; a transfer begun is never called back, so the caller
  // keeps the promise to its end or destroys this object.
  kj::Promise<ssize_t> transfer(size_t size);

 private:
  class Shared;
  const uint32_t number;
  kj::Own<Shared> shared;
};

}  // namespace troupe::console
