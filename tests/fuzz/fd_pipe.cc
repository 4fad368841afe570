#include "tests/fuzz/fd_pipe.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/refcount.h>

#include <deque>

namespace troupe::fuzz {
namespace {

// Fds that were written and not read yet.
struct OnTheirWay final: public kj::Refcounted {
  std::deque<kj::AutoCloseFd> fds;
};

class End final: public kj::AsyncCapabilityStream {
 public:
  End(kj::Own<kj::AsyncIoStream> bytes, kj::Own<OnTheirWay> incoming, kj::Own<OnTheirWay> outgoing)
      : bytes(kj::mv(bytes)), incoming(kj::mv(incoming)), outgoing(kj::mv(outgoing)) {}

  kj::Promise<size_t> tryRead(void* buffer, size_t least, size_t most) override {
    return bytes->tryRead(buffer, least, most);
  }
  kj::Promise<ReadResult> tryReadWithFds(void* buffer, size_t least, size_t most,
                                         kj::AutoCloseFd* fds, size_t mostFds) override {
    return bytes->tryRead(buffer, least, most).then([this, fds, mostFds](size_t count) {
      ReadResult result{count, 0};
      // As with a socket: what there is no room for is lost.
      for (; !incoming->fds.empty(); incoming->fds.pop_front()) {
        if (result.capCount < mostFds) fds[result.capCount++] = kj::mv(incoming->fds.front());
      }
      return result;
    });
  }
  kj::Promise<void> write(const void* buffer, size_t size) override {
    return bytes->write(buffer, size);
  }
  kj::Promise<void> write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override {
    return bytes->write(pieces);
  }
  kj::Promise<void> writeWithFds(kj::ArrayPtr<const kj::byte> data,
                                 kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> more,
                                 kj::ArrayPtr<const int> fds) override {
    for (int fd : fds) {
      int copy;
      KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
      outgoing->fds.emplace_back(copy);
    }
    return bytes->write(data.begin(), data.size()).then([this, more]() -> kj::Promise<void> {
      if (more.size() == 0) return kj::READY_NOW;
      return bytes->write(more);
    });
  }
  kj::Promise<void> whenWriteDisconnected() override { return bytes->whenWriteDisconnected(); }
  void shutdownWrite() override { bytes->shutdownWrite(); }

  kj::Promise<ReadResult> tryReadWithStreams(void*, size_t, size_t,
                                             kj::Own<kj::AsyncCapabilityStream>*, size_t) override {
    KJ_UNIMPLEMENTED("fds alone");
  }
  kj::Promise<void> writeWithStreams(kj::ArrayPtr<const kj::byte>,
                                     kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>>,
                                     kj::Array<kj::Own<kj::AsyncCapabilityStream>>) override {
    KJ_UNIMPLEMENTED("fds alone");
  }

 private:
  kj::Own<kj::AsyncIoStream> bytes;
  kj::Own<OnTheirWay> incoming;
  kj::Own<OnTheirWay> outgoing;
};

}  // namespace

FdPipe newFdPipe() {
  auto bytes = kj::newTwoWayPipe();
  auto there = kj::refcounted<OnTheirWay>();
  auto back = kj::refcounted<OnTheirWay>();
  FdPipe pipe;
  pipe.ends[0] = kj::heap<End>(kj::mv(bytes.ends[0]), kj::addRef(*back), kj::addRef(*there));
  pipe.ends[1] = kj::heap<End>(kj::mv(bytes.ends[1]), kj::mv(there), kj::mv(back));
  return pipe;
}

}  // namespace troupe::fuzz
