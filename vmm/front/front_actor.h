#pragma once

#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/io.h>

#include "protos/control.capnp.h"
#include "protos/handle.capnp.h"
#include "vmm/front/front.capnp.h"

namespace troupe::front {

// Of the control socket and of the metrics' together.
constexpr uint32_t MOST_CLIENTS = 20;

// Where the fds of connections go: the process's filters name fds by number.
class ConnectionSlots {
 public:
  struct Placed {
    uint32_t slot;
    kj::AutoCloseFd fd;
  };

  // A duplicate of `fd` in a free slot. Throws when none is free.
  virtual Placed place(int fd) = 0;
  virtual void release(uint32_t slot) = 0;
};

// Serves `troupe`: interface FrontEnd in front.capnp.
class FrontActor final: public FrontEnd::Server {
 public:
  // `narrow` takes the process's serving filter.
  FrontActor(kj::AsyncIoContext& io, ConnectionSlots& slots, kj::Function<void()> narrow);

  kj::Promise<void> ready(ReadyContext context) override;
  kj::Promise<void> serve(ServeContext context) override;
  kj::Promise<void> serveMetrics(ServeMetricsContext context) override;

 private:
  using Serve = kj::Function<kj::Promise<void>(kj::Own<kj::AsyncIoStream>)>;
  kj::Promise<void> take(Handle::Client connection, Serve serve);

  kj::AsyncIoContext& io;
  ConnectionSlots& slots;
  kj::Function<void()> narrow;
};

// Serves `vm` to the client at the other end of `stream` until it leaves, does not take its
// answers, or has asked for more than any honest client does.
kj::Promise<void> serveClient(kj::Own<kj::AsyncIoStream> stream, Vm::Client vm, kj::Timer& timer);

}  // namespace troupe::front
