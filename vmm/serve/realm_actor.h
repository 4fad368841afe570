#pragma once

#include "protos/realm.capnp.h"
#include "vmm/serve/environment.h"
#include "vmm/serve/session.h"

namespace troupe::realm {

// One client's hold on a realm: interface Realm in protos/realm.capnp.
class RealmActor final: public Realm::Server {
 public:
  RealmActor(Environment& realm, kj::Own<Session> session);

  kj::Promise<void> launchInstance(LaunchInstanceContext context) override;
  kj::Promise<void> listInstances(ListInstancesContext context) override;
  kj::Promise<void> connectToInstance(ConnectToInstanceContext context) override;
  kj::Promise<void> connectToBalloon(ConnectToBalloonContext context) override;
  kj::Promise<void> getHostVsockEndpoint(GetHostVsockEndpointContext context) override;

 private:
  Instance& require(uint32_t cid);

  Environment& realm;
  kj::Own<Session> session;
  // First, so that a realm whose holder cannot be counted ends with the attempt.
  Environment::Hold hold{realm};
  Session::Thing counted{*session};
};

// `list` has room for all of the realm's guests.
void listInstances(Environment& realm, capnp::List<InstanceInfo>::Builder list);

}  // namespace troupe::realm
