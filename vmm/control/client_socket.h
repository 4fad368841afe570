#pragma once

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/io.h>

namespace troupe {

// A socket that clients connect to, and who of them may come in.
//
// A process that can open no further file would leave its clients waiting, and be told of none of
// them again: the socket is readable already. So one fd is kept for them. While there is no other
// they are let in and hung up on, a few at a time; that is said once.
class ClientSocket {
 public:
  enum class Whom { OWNER_AND_ROOT, ALL };

  // `socket` listens, is non-blocking and borrowed. `what`: for the message, "clients of realms".
  ClientSocket(kj::AsyncIoContext& io, int socket, Whom whom, kj::StringPtr what);
  KJ_DISALLOW_COPY(ClientSocket);

  // The next client; none when nobody waits, or nobody can be served now.
  kj::Maybe<kj::AutoCloseFd> accept();

  // Says why a client cannot be served, unless that was said of one before and nobody has been served
  // since: what is in the way of one is in the way of all.
  void sayShort(kj::StringPtr why);
  void sayServed() { isSaid = false; }

  // Resolves when accept(), which returned none, is worth another try. One caller at a time.
  kj::Promise<void> whenReady();

 private:
  void hangUp();

  kj::Timer& timer;
  const int socket;
  const Whom whom;
  const kj::String what;
  kj::UnixEventPort::FdObserver observer;
  kj::AutoCloseFd reserve;
  bool isShort = false;  // of fds: when it was tried last
  bool isSaid = false;
};

}  // namespace troupe
