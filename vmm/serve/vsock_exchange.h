#pragma once

#include <kj/async-io.h>
#include <kj/io.h>
#include <kj/refcount.h>

#include <map>

#include "protos/realm.capnp.h"
#include "vmm/serve/patient_asker.h"
#include "vmm/vsock/vsock_neighbours.h"

namespace troupe::realm {

// Joins the sockets of one realm: those of its guests, and of the host's programs that hold its
// HostVsockEndpoint, who share the ports of cid 2.
class VsockExchange final: public kj::Refcounted {
 public:
  static constexpr uint32_t HOST_CID = 2;
  static constexpr uint32_t FIRST_EPHEMERAL = 49152;
  static constexpr uint32_t LAST_EPHEMERAL = 65535;
  static constexpr size_t MOST_LISTENERS = 1024;

  // Sockets that a guest's device has been given and has not dropped; one that is well drops them
  // at once.
  static constexpr uint32_t MOST_HELD = 128;

  // Streams that one guest may be waiting for at a time, and questions to it, or to one client
  // about its listeners, that are not answered.
  static constexpr uint32_t MOST_WAITING = 64;

  explicit VsockExchange(kj::Timer& timer) : timer(timer) {}
  KJ_DISALLOW_COPY(VsockExchange);

  // A guest's part in it, until it is destroyed.
  kj::Own<VsockNeighbours> join(uint32_t cid);

  // Whether this guest has joined.
  bool has(uint32_t cid) const { return guests.count(cid) > 0; }

  // While `listening` lives, streams to the host's `port` are asked of `acceptor`, in the way of
  // `asker`, which all acceptors of one client share. It is set for OK alone.
  class Listening;
  VsockStatus listen(uint32_t port, HostVsockAcceptor::Client acceptor, kj::Own<PatientAsker> asker,
                     kj::Own<Listening>& listening);

  // The other end of `socket` becomes a stream of the host's to `port` of a guest. It is a
  // connected stream socket. Resolves when the guest has answered. Goes on when nobody waits for
  // it.
  kj::Promise<VsockStatus> connect(uint32_t cid, uint32_t port, kj::AutoCloseFd socket);

 private:
  struct Guest;
  class Neighbours;
  class GuestsConnector;
  struct Use {  // of an ephemeral port
    uint32_t cid;
    uint32_t port;
  };
  using Socket = kj::Maybe<kj::AutoCloseFd>;

  kj::Promise<Socket> reach(uint32_t from, uint32_t fromPort, uint32_t cid, uint32_t port);
  kj::Promise<Socket> reachHost(uint32_t from, uint32_t fromPort, uint32_t port);
  kj::Promise<Socket> reachGuest(uint32_t from, uint32_t fromPort, uint32_t cid, uint32_t port);
  kj::Promise<VsockStatus> offer(uint32_t cid, uint32_t peerCid, uint32_t peerPort, uint32_t port,
                                 kj::AutoCloseFd socket);
  uint32_t lowestFreePort() const;
  void freePort(uint32_t hostPort, uint32_t cid, uint32_t port);
  void freePortsOf(uint32_t cid);

  struct Listener {
    HostVsockAcceptor::Client acceptor;
    kj::Own<PatientAsker> asker;

    Listener(HostVsockAcceptor::Client acceptor, kj::Own<PatientAsker> asker)
        : acceptor(kj::mv(acceptor)), asker(kj::mv(asker)) {}
    Listener(Listener&&) = default;
    KJ_DISALLOW_COPY(Listener);  // a capability's copying would be no std::pair's
  };

  kj::Timer& timer;
  std::map<uint32_t, Listener> listeners;  // by the host's port
  std::map<uint32_t, Use> inUse;           // likewise
  std::map<uint32_t, Guest*> guests;       // by cid
};

// The host's port is free again when this is destroyed.
class VsockExchange::Listening {
 public:
  Listening(kj::Own<VsockExchange> exchange, uint32_t port)
      : exchange(kj::mv(exchange)), port(port) {}
  ~Listening() noexcept(false) { exchange->listeners.erase(port); }
  KJ_DISALLOW_COPY(Listening);

 private:
  kj::Own<VsockExchange> exchange;
  const uint32_t port;
};

}  // namespace troupe::realm
