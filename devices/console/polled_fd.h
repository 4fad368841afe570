#pragma once

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/common.h>
#include <sys/types.h>

namespace troupe::console {

// A non-blocking fd in the event loop: a socket or a pseudo-terminal that nobody else uses.
class PolledFd {
 public:
  // `fd` is borrowed. It is made non-blocking by makeNonBlocking() or by whoever opened it.
  PolledFd(kj::UnixEventPort& events, int fd);
  KJ_DISALLOW_COPY(PolledFd);

  // One system call each: what it returned, or -errno.
  ssize_t read(kj::ArrayPtr<kj::byte> bytes);
  ssize_t write(kj::ArrayPtr<const kj::byte> bytes);

  // After a read(): resolves when another may give something, and not before other events had their
  // turn, so that a sender who never pauses does not keep the loop to itself.
  kj::Promise<void> whenReadable();

  // After a write() that gave -EAGAIN.
  kj::Promise<void> whenWritable() { return observer.whenBecomesWritable(); }

  // After a read() or write() whose failure only the other side can end: its next event.
  kj::Promise<void> whenReadableAgain() { return observer.whenBecomesReadable(); }

  // Resolves when the other side is gone for both directions. Ask once, before anything else.
  kj::Promise<void> whenHungUp() { return observer.whenWriteDisconnected(); }

 private:
  kj::UnixEventPort& events;
  int fd;
  kj::UnixEventPort::FdObserver observer;
  bool wasFull = false;   // the last read() filled its buffer
  bool wasEmpty = false;  // the last read() found nothing
};

// For an fd whose file description this process shares with nobody.
void makeNonBlocking(int fd);

// Resolves after the event loop has looked for I/O once more. A promise that is ready at once does
// not: with one always ready the loop would never look again.
kj::Promise<void> nextTurn(kj::Timer& timer);

}  // namespace troupe::console
