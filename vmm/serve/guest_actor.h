#pragma once

#include "protos/realm.capnp.h"
#include "vmm/serve/instance.h"
#include "vmm/serve/session.h"
#include "vmm/serve/vsock_exchange.h"

namespace troupe::realm {

// Serves one client's hold on a guest: interface Guest in protos/realm.capnp.
class GuestActor final: public Guest::Server {
 public:
  // `sockets`: of its realm. `counted`: its place among what the session holds.
  GuestActor(kj::Own<Instance> guest, kj::Own<VsockExchange> sockets, kj::Own<Session> session,
             kj::Own<Session::Thing> counted);

  kj::Promise<void> getSerial(GetSerialContext context) override;
  kj::Promise<void> getConsole(GetConsoleContext context) override;
  kj::Promise<void> getHostVsockEndpoint(GetHostVsockEndpointContext context) override;
  kj::Promise<void> stop(StopContext context) override;
  kj::Promise<void> pause(PauseContext context) override;
  kj::Promise<void> resume(ResumeContext context) override;
  kj::Promise<void> waitForEnd(WaitForEndContext context) override;
  kj::Promise<void> waitForStart(WaitForStartContext context) override;

 private:
  kj::Own<Instance> guest;
  kj::Own<VsockExchange> sockets;
  kj::Own<Session> session;
  kj::Own<Session::Thing> counted;
};

// The VM of `guest`. Throws a user error before it is there, and when it is gone.
RunningVm& requireVm(Instance& guest);

}  // namespace troupe::realm
