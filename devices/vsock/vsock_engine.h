#pragma once

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/common.h>
#include <kj/io.h>
#include <kj/vector.h>

#include <cstdint>

#include "devices/virtio/device_engine.h"
#include "devices/virtio/host_inputs.h"
#include "devices/vsock/stream.h"
#include "protos/connector.capnp.h"

namespace troupe::vsock {

// A virtio socket device (§5.10): streams of the guest, each carried by a socket of the host.
//
// It lives in the main loop. Clients are accepted and connectors asked from DRIVER_OK to reset; a
// reset closes every stream, and clients that come meanwhile wait in the backlog.
class VsockEngine final: public virtio::DeviceEngine {
 public:
  // Where clients of the host connect: a listening, non-blocking fd, borrowed. Without a port the
  // client says which one it wants.
  struct Listener {
    int fd;
    kj::Maybe<uint32_t> guestPort;
  };

  // `connector` finds the other end of streams that the guest begins, and is told of the end of
  // those that it offered. `kept`: a page that is kept
  // for whoever takes this process's place and outlives the engine, or none.
  VsockEngine(kj::UnixEventPort& events, uint64_t guestCid, kj::Array<Listener> listeners,
              Connector::Client connector, kj::ArrayPtr<kj::byte> kept = nullptr);
  ~VsockEngine() noexcept(false);

  // Somebody has a stream for the guest. Resolves when that has answered.
  kj::Promise<OfferAnswer> take(StreamName::Reader name, kj::AutoCloseFd socket);

  virtio::DeviceDescription describe() override;
  void start(const virtio::GuestMemory& memory, uint64_t features,
             kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  // Ends all streams and tells the guest so (§5.10.6.7.1): whatever they were connected with, they
  // are not any more.
  void resume(const virtio::GuestMemory& memory, uint64_t features,
              kj::Array<virtio::ActiveQueue> queues, virtio::DriverLink& link) override;
  kj::Promise<void> stop() override;
  void recordIn(virtio::FlightLog& log) override;

 private:
  struct Active;  // rings, streams, and the promise that serves them

  void tellEnd(const StreamKey& key);
  kj::Promise<void> tellEnds();

  kj::UnixEventPort& events;
  const uint64_t guestCid;
  kj::Array<Listener> listeners;
  Connector::Client connector;
  uint32_t nextPortHere = 0;  // where nobody is to take this process's place
  uint32_t& nextPort;
  kj::Maybe<virtio::HostInputs> flight;  // where the host's side is recorded, or replayed
  kj::Vector<StreamKey> untold;          // ends of streams
  bool isTelling = false;
  kj::Promise<void> telling = kj::READY_NOW;
  kj::Maybe<kj::Own<Active>> active;
};

// Takes offers of streams: interface Acceptor in protos/connector.capnp.
class OfferTaker final: public Acceptor::Server {
 public:
  // From now on for this engine, which lives as long as calls may come; before, all are refused.
  void serve(VsockEngine& engine) { its = engine; }

  kj::Promise<void> offer(OfferContext context) override;

 private:
  kj::Maybe<VsockEngine&> its;
};

}  // namespace troupe::vsock
