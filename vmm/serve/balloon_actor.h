#pragma once

#include "protos/control.capnp.h"
#include "protos/realm.capnp.h"
#include "vmm/serve/instance.h"
#include "vmm/serve/session.h"

namespace troupe::realm {

// What a guest tells of its memory, as getMemStats() answers it.
void answerStatistics(BalloonStatus::Reader status,
                      BalloonController::GetMemStatsResults::Builder results);

// Serves one client's hold on a guest's balloon: interface BalloonController in protos/realm.capnp.
class BalloonActor final: public BalloonController::Server {
 public:
  static constexpr uint32_t MOST_WAITING = 8;  // for statistics, of all clients of a guest

  BalloonActor(kj::Own<Instance> guest, kj::Own<Session> session);

  kj::Promise<void> getNumPages(GetNumPagesContext context) override;
  kj::Promise<void> requestNumPages(RequestNumPagesContext context) override;
  kj::Promise<void> getMemStats(GetMemStatsContext context) override;

 private:
  kj::Own<Instance> guest;
  kj::Own<Session> session;
  Session::Thing counted{*session};
};

}  // namespace troupe::realm
