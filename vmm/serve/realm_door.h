#pragma once

#include <kj/async-io.h>

#include "vmm/actors/inspection.h"
#include "vmm/control/client_socket.h"
#include "vmm/serve/manager_actor.h"

namespace troupe::realm {

// The socket on which clients of realms come. For each of them a jailed process is started that
// ends the connection and decodes what it says (vmm/front/realm_front.h); here not one byte of
// theirs is read. Only the owner of this process and root are let in.
//
// A client that leaves, or goes too far, takes its process along, and with it all that it held.
class RealmDoor final: private kj::TaskSet::ErrorHandler {
 public:
  static constexpr uint32_t MOST_CLIENTS = 64;  // more wait

  // `listening` listens and is borrowed; so is all else, for as long as this lives.
  RealmDoor(kj::AsyncIoContext& io, int listening, Stage& stage, Environments& realms,
            const RealmTerms& terms);
  ~RealmDoor() noexcept(false);
  KJ_DISALLOW_COPY(RealmDoor);

 private:
  class Visit;

  kj::Promise<void> acceptLoop();
  void acceptClients();
  kj::Promise<void> serve(kj::AutoCloseFd client);
  void taskFailed(kj::Exception&& failure) override;

  kj::AsyncIoContext& io;
  ClientSocket socket;
  Stage& stage;
  Environments& realms;
  const RealmTerms& terms;
  sandbox::VmCgroups groups;
  ActorLauncher launcher;
  Inspection inspection;
  uint32_t nextNumber = 0;
  uint32_t clients = 0;
  kj::TaskSet visits;
  kj::Promise<void> accepting;
};

}  // namespace troupe::realm
