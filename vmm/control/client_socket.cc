#include "vmm/control/client_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/actors/child_log.h"
#include "vmm/words/quote.h"

namespace troupe {

namespace {

constexpr kj::Duration PAUSE = 100 * kj::MILLISECONDS;
constexpr int MOST_HUNG_UP = 64;  // at a time

bool mayEnter(int connection) {
  ucred peer;
  socklen_t length = sizeof(peer);
  if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  return peer.uid == geteuid() || peer.uid == 0;
}

// Not of what is in the way of one client, but of all.
bool isShortage(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

kj::AutoCloseFd openReserve() {
  return kj::AutoCloseFd(open("/dev/null", O_RDONLY | O_CLOEXEC));  // -1 while there is none
}

// -1 and errno, as accept4(2) does.
int acceptOne(int socket) {
  for (;;) {
    int fd = accept4(socket, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 || (errno != EINTR && errno != ECONNABORTED)) return fd;
  }
}

}  // namespace

ClientSocket::ClientSocket(kj::AsyncIoContext& io, int socket, Whom whom, kj::StringPtr what)
    : timer(io.provider->getTimer()),
      socket(socket),
      whom(whom),
      what(kj::heapString(what)),
      observer(io.unixEventPort, socket, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      reserve(openReserve()) {}

kj::Maybe<kj::AutoCloseFd> ClientSocket::accept() {
  if (reserve == nullptr) reserve = openReserve();
  isShort = false;
  for (;;) {
    int raw = acceptOne(socket);
    if (raw < 0) {
      int error = errno;
      if (!isShortage(error)) return nullptr;
      isShort = true;
      sayShort(kj::str(errnoText(error), "; see: ls /proc/", getpid(), "/fd | wc -l; ulimit -Hn"));
      hangUp();
      return nullptr;
    }
    kj::AutoCloseFd connection(raw);
    if (whom == Whom::ALL || mayEnter(connection)) return kj::mv(connection);
  }
}

void ClientSocket::hangUp() {
  reserve = nullptr;
  for (int i = 0; i < MOST_HUNG_UP; i++) {
    int raw = acceptOne(socket);
    if (raw < 0) break;
    kj::AutoCloseFd refused(raw);
  }
  reserve = openReserve();
}

void ClientSocket::sayShort(kj::StringPtr why) {
  if (isSaid) return;
  isSaid = true;
  printError(kj::str("troupe: ", what, " are hung up on: ", why, "\n"));
}

kj::Promise<void> ClientSocket::whenReady() {
  if (!isShort) return observer.whenBecomesReadable();
  isShort = false;
  return timer.afterDelay(PAUSE);
}

}  // namespace troupe
