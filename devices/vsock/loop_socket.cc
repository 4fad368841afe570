#include "devices/vsock/loop_socket.h"

#include <kj/debug.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstdlib>

namespace troupe::vsock {

namespace {

// The kernel doubles it: what it keeps of one stream among many (stream_table.cc).
constexpr int LITTLE = 16 << 10;

void cannotFail(kj::Exception&& exception) {
  KJ_LOG(FATAL, "watching a socket failed", exception);
  std::abort();
}

using PositionedCall = ssize_t (*)(int, const iovec*, int, off_t, int);

// preadv2() or pwritev2(), at the position that a socket has none of.
ssize_t resultOf(PositionedCall call, int fd, kj::ArrayPtr<const iovec> pieces, int& flags) {
  for (;;) {
    ssize_t result = call(fd, pieces.begin(), int(pieces.size()), -1, flags);
    if (result >= 0) return result;
    if (errno == EOPNOTSUPP && flags != 0) {
      flags = 0;
    } else if (errno != EINTR) {
      return -errno;
    }
  }
}

}  // namespace

LoopSocket::LoopSocket(kj::UnixEventPort& events, kj::AutoCloseFd socketParam)
    : socket(kj::mv(socketParam)),
      flags(RWF_NOWAIT),
      observer(events, socket, kj::UnixEventPort::FdObserver::OBSERVE_READ_WRITE),
      news([] {}),
      reading(nullptr),
      writing(nullptr),
      hanging(nullptr) {}

void LoopSocket::onNews(kj::Function<void()> newsParam) {
  news = kj::mv(newsParam);
  reading = watchRead().eagerlyEvaluate(cannotFail);
  writing = watchWrite().eagerlyEvaluate(cannotFail);
  hanging = observer.whenWriteDisconnected()
                .then([this] {
                  hungUp = true;
                  news();
                })
                .eagerlyEvaluate(cannotFail);
}

// The interest is edge-triggered, and asked for again before anybody reads: no edge is lost.
kj::Promise<void> LoopSocket::watchRead() {
  return observer.whenBecomesReadable().then([this] {
    news();
    return watchRead();
  });
}

kj::Promise<void> LoopSocket::watchWrite() {
  return observer.whenBecomesWritable().then([this] {
    news();
    return watchWrite();
  });
}

ssize_t LoopSocket::read(kj::ArrayPtr<const iovec> pieces) {
  return resultOf(preadv2, socket, pieces, flags);
}

ssize_t LoopSocket::write(kj::ArrayPtr<const iovec> pieces) {
  return resultOf(pwritev2, socket, pieces, flags);
}

// The other side may be gone already; then it needs no telling.
void LoopSocket::endSending() {
  ::shutdown(socket, SHUT_WR);
}

void LoopSocket::endReceiving() {
  ::shutdown(socket, SHUT_RD);
}

void LoopSocket::keepLittle() {
  setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &LITTLE, sizeof(LITTLE));
}

}  // namespace troupe::vsock
