#pragma once

#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/vector.h>

#include "devices/console/backend.h"
#include "devices/console/broadcast.h"

namespace troupe::console {

// A listening unix socket: everybody who connects reads all output from the oldest byte kept on,
// or, where nothing is kept for late readers, from then on. There, the host's side of the port is
// open while somebody is connected.
//
// The client that connected last and has not shut down its sending side writes; when it leaves, the
// one before it does again. What other clients send is read and thrown away, so that nothing typed
// long ago comes up later. A client that only reads should shut down its sending side.
//
// Connections wait in the socket's backlog until the guest has a driver for the port: what the
// process holds does not change before it has been checked from outside and the guest runs.
class SocketBackend final: public Backend, private kj::TaskSet::ErrorHandler {
 public:
  static constexpr kj::uint MAX_CLIENTS = 16;

  // Whether who comes late is given what was said before.
  enum class Replay { ON, OFF };

  // `listening` is borrowed and becomes non-blocking.
  SocketBackend(kj::UnixEventPort& events, Line& line, int listening, Replay replay);
  ~SocketBackend() noexcept(false);

 private:
  class Client;

  kj::Promise<void> acceptLoop();
  void accepted(kj::AutoCloseFd connection);
  void clientsChanged();
  bool isWriter(const Client& client) const;
  void taskFailed(kj::Exception&& exception) override;

  kj::UnixEventPort& events;
  Line& line;
  int listening;
  const Replay replay;
  kj::UnixEventPort::FdObserver observer;
  Broadcast writerChanged;      // or may have
  kj::Vector<Client*> clients;  // in the order they came
  kj::TaskSet serving;          // owns the clients
  kj::Promise<void> accepting;
};

}  // namespace troupe::console
