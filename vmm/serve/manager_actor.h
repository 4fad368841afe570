#pragma once

#include "protos/realm.capnp.h"
#include "vmm/serve/environment.h"
#include "vmm/serve/session.h"

namespace troupe::realm {

// Serves one connection: interface Manager in protos/realm.capnp. What it hands out serves the same
// connection, within the bounds of `session`.
class ManagerActor final: public Manager::Server {
 public:
  // `terms`: of realms that say nothing else.
  ManagerActor(Environments& realms, const RealmTerms& terms, kj::Own<Session> session);

  kj::Promise<void> create(CreateContext context) override;
  kj::Promise<void> list(ListContext context) override;
  kj::Promise<void> connect(ConnectContext context) override;
  kj::Promise<void> listGuests(ListGuestsContext context) override;
  kj::Promise<void> connectToGuest(ConnectToGuestContext context) override;

 private:
  Environments& realms;
  const RealmTerms& terms;
  kj::Own<Session> session;
};

RealmTerms copyOf(const RealmTerms& terms);

// Throws unless `text`, said by a client as its `what`, has at most 255 bytes, none of which is a
// control character.
void checkText(kj::StringPtr what, kj::StringPtr text);

}  // namespace troupe::realm
