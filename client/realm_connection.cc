#include "client/realm_connection.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "protos/fd_handle.h"

namespace troupe::client {

namespace {

kj::AutoCloseFd connectTo(kj::StringPtr path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  KJ_REQUIRE(path.size() < sizeof(address.sun_path), "no socket has so long a path", path);
  memcpy(address.sun_path, path.begin(), path.size());
  int raw;
  KJ_SYSCALL(raw = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  kj::AutoCloseFd fd(raw);
  KJ_SYSCALL(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), path);
  return fd;
}

}  // namespace

kj::String defaultSocket() {
  if (geteuid() == 0) return kj::str("/run/troupe/realms");
  const char* runtime = getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && runtime[0] == '/') return kj::str(runtime, "/troupe/realms");
  return kj::str("/tmp/troupe-", geteuid(), "/realms");
}

RealmConnection::RealmConnection(kj::AsyncIoContext& io, kj::StringPtr path)
    : RealmConnection(io, connectTo(path)) {}

RealmConnection::RealmConnection(kj::AsyncIoContext& io, kj::AutoCloseFd connected)
    : stream(io.lowLevelProvider->wrapUnixSocketFd(kj::mv(connected))),
      network(*stream, MAX_FDS_PER_MESSAGE, capnp::rpc::twoparty::Side::CLIENT),
      rpc(capnp::makeRpcClient(network)) {}

realm::Manager::Client RealmConnection::manager() {
  capnp::MallocMessageBuilder message(8);
  auto vatId = message.initRoot<capnp::rpc::twoparty::VatId>();
  vatId.setSide(capnp::rpc::twoparty::Side::SERVER);
  return rpc.bootstrap(vatId).castAs<realm::Manager>();
}

Handle::Client handleOf(kj::AutoCloseFd fd) {
  return kj::heap<FdHandle>(kj::mv(fd));
}

kj::Promise<kj::AutoCloseFd> fdOf(Handle::Client handle) {
  auto got = handle.getFd();
  return got.then([handle = kj::mv(handle)](kj::Maybe<int> lent) {
    int copy;
    KJ_SYSCALL(
        copy = fcntl(KJ_REQUIRE_NONNULL(lent, "a capability without its fd"), F_DUPFD_CLOEXEC, 3));
    return kj::AutoCloseFd(copy);
  });
}

}  // namespace troupe::client
