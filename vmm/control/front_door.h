#pragma once

#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/vector.h>

#include "protos/control.capnp.h"
#include "vmm/actors/actor.h"

namespace troupe {

// The sockets of one VM that clients connect to, seen from `troupe`: accepts them, asks the kernel
// who they are and passes their connections on to the front end, a jailed actor that is started for
// the first of them. Not one byte of theirs is read here.
//
// Only the VM's owner and root are let in to control it. It is `troupe` that asks, because inside a
// user namespace the kernel shows every foreign uid as the same one. Who may read its metrics is
// the affair of that socket's permissions.
class FrontDoor {
 public:
  // Starts the front end with its RPC pipe.
  using Launch = kj::Function<kj::Own<Actor>(int pipe)>;

  // Fails if the front end, ready to serve, is not jailed as its profile says.
  using Attest = kj::Function<kj::Promise<void>(Actor&)>;

  // `control` and `metrics` listen and are borrowed; `vm` is what clients get.
  FrontDoor(kj::AsyncIoContext& io, int control, kj::Maybe<int> metrics, Vm::Client vm,
            Launch launch, Attest attest);
  ~FrontDoor() noexcept(false);
  KJ_DISALLOW_COPY(FrontDoor);

  // The front end's process, if it runs.
  kj::Maybe<Actor&> actor();

 private:
  struct Front;
  struct Door;

  kj::Promise<void> untilClientWaits();
  kj::Promise<void> untilClientWaits(Door& door);
  kj::Promise<void> runFronts();
  kj::Promise<void> runFront();
  kj::Promise<void> acceptLoop(Front& front, Door& door);
  void acceptClients(Front& front, Door& door);
  kj::Promise<void> serve(Front& front, Door& door, kj::AutoCloseFd connection);

  kj::AsyncIoContext& io;
  kj::Vector<kj::Own<Door>> doors;
  Vm::Client vm;
  Launch launch;
  Attest attest;
  kj::Maybe<kj::Own<Front>> running;
  kj::Promise<void> life;
};

}  // namespace troupe
