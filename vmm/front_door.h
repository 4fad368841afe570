#pragma once

#include <kj/async-io.h>
#include <kj/function.h>

#include "protos/control.capnp.h"
#include "vmm/actor.h"

namespace troupe {

// The control socket of one VM, seen from `troupe`: accepts clients, asks the kernel who they are
// and passes their connections on to the front end, a jailed actor that is started for the first of
// them. Not one byte of theirs is read here.
//
// Only the VM's owner and root are let in. It is `troupe` that asks, because inside a user
// namespace the kernel shows every foreign uid as the same one.
class FrontDoor {
 public:
  // Starts the front end with its RPC pipe.
  using Launch = kj::Function<kj::Own<Actor>(int pipe)>;

  // Fails if the front end, ready to serve, is not jailed as its profile says.
  using Attest = kj::Function<kj::Promise<void>(Actor&)>;

  // `socket` listens and is borrowed; `vm` is what clients get.
  FrontDoor(kj::AsyncIoContext& io, int socket, Vm::Client vm, Launch launch, Attest attest);
  ~FrontDoor() noexcept(false);
  KJ_DISALLOW_COPY(FrontDoor);

  // The front end's process, if it runs.
  kj::Maybe<Actor&> actor();

 private:
  struct Front;

  kj::Promise<void> untilClientWaits();
  kj::Promise<void> runFronts();
  kj::Promise<void> runFront();
  kj::Promise<void> acceptLoop(Front& front);
  void acceptClients(Front& front);

  kj::AsyncIoContext& io;
  int socket;
  Vm::Client vm;
  Launch launch;
  Attest attest;
  kj::UnixEventPort::FdObserver observer;
  kj::Maybe<kj::Own<Front>> running;
  kj::Promise<void> life;
};

}  // namespace troupe
