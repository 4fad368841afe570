#include "vmm/serve/manager_actor.h"

#include <capnp/message.h>

#include "protos/control.capnp.h"
#include "vmm/serve/guest_actor.h"
#include "vmm/serve/realm_actor.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

namespace {

constexpr size_t LONGEST_TEXT = 255;

void describe(Instance& guest, GuestSummary::Builder to) {
  to.setCid(guest.cid());
  to.setLabel(guest.label());
  KJ_IF_MAYBE (vm, guest.vm()) {
    capnp::MallocMessageBuilder scratch;
    auto status = scratch.initRoot<VmStatus>();
    vm->describe(status);
    to.setName(status.getName());
    to.setState(status.getState());
    to.setUptimeMs(status.getUptimeMs());
    to.setCpus(status.getCpus());
    to.setMemoryBytes(status.getMemoryBytes());
    to.setPid(status.getPid());
    uint64_t restarts = 0;
    for (auto actor : status.getActors())
      restarts += actor.getIsSpare() ? 0 : actor.getRestarts();
    to.setRestarts(restarts);
  } else {
    to.setState("starting");
  }
}

}  // namespace

RealmTerms copyOf(const RealmTerms& terms) {
  RealmTerms copy;
  copy.net = {terms.net.kind, kj::str(terms.net.name)};
  for (auto& words : terms.hostMemory)
    copy.hostMemory.add(words.clone());
  return copy;
}

void checkText(kj::StringPtr what, kj::StringPtr text) {
  bool isClean = text.size() <= LONGEST_TEXT;
  for (char c : text)
    isClean = isClean && static_cast<unsigned char>(c) >= 0x20 && c != 0x7f;
  if (isClean) return;
  UserError(codes::REALM_TEXT,
            kj::str("the ", what, " ", quote(text), " has ", text.size(),
                    " bytes; expected at most ", LONGEST_TEXT, " and no control characters"))
      .raise();
}

ManagerActor::ManagerActor(Environments& realms, const RealmTerms& terms, kj::Own<Session> session)
    : realms(realms), terms(terms), session(kj::mv(session)) {}

kj::Promise<void> ManagerActor::create(CreateContext context) {
  auto params = context.getParams();
  checkText("label of a realm", params.getLabel());
  checkText("network of a realm", params.getNet());
  auto chosen = copyOf(terms);
  if (params.getNet().size() > 0) chosen.net = parseNetChoice(params.getNet());
  if (params.getNoHostMemory()) chosen.hostMemory.clear();
  auto& realm = realms.create(params.getLabel(), Environment::Kept::NO, kj::mv(chosen));
  context.getResults().setRealm(kj::heap<RealmActor>(realm, kj::addRef(*session)));
  context.getResults().setId(realm.id());
  return kj::READY_NOW;
}

kj::Promise<void> ManagerActor::list(ListContext context) {
  auto found = realms.list();
  auto list = context.getResults().initEnvironments(found.size());
  for (kj::uint i = 0; i < found.size(); i++) {
    list[i].setId(found[i]->id());
    list[i].setLabel(found[i]->label());
    listInstances(*found[i], list[i].initInstances(found[i]->guests().size()));
  }
  return kj::READY_NOW;
}

kj::Promise<void> ManagerActor::connect(ConnectContext context) {
  uint32_t id = context.getParams().getId();
  KJ_IF_MAYBE (realm, realms.find(id)) {
    context.getResults().setRealm(kj::heap<RealmActor>(*realm, kj::addRef(*session)));
    return kj::READY_NOW;
  }
  UserError(codes::NO_SUCH_REALM, kj::str("there is no realm ", id)).raise();
}

kj::Promise<void> ManagerActor::listGuests(ListGuestsContext context) {
  auto found = realms.list();
  size_t count = 0;
  for (auto realm : found)
    count += realm->guests().size();
  auto list = context.getResults().initGuests(count);
  kj::uint next = 0;
  for (auto realm : found) {
    for (auto& one : realm->guests()) {
      auto to = list[next++];
      to.setRealm(realm->id());
      to.setRealmLabel(realm->label());
      describe(*one.second, to);
    }
  }
  return kj::READY_NOW;
}

kj::Promise<void> ManagerActor::connectToGuest(ConnectToGuestContext context) {
  auto name = context.getParams().getName();
  for (auto realm : realms.list()) {
    for (auto& one : realm->guests()) {
      auto& guest = *one.second;
      bool isIt = guest.vm().map([&](RunningVm& vm) { return vm.name() == name; }).orDefault(false);
      if (!isIt) continue;
      context.getResults().setCid(guest.cid());
      context.getResults().setController(
          kj::heap<GuestActor>(kj::addRef(guest), kj::addRef(realm->sockets()),
                               kj::addRef(*session), session->reserve()));
      return kj::READY_NOW;
    }
  }
  UserError(codes::NO_SUCH_GUEST, kj::str("no guest of a realm is called ", quote(name)))
      .advice("see", "troupe list")
      .raise();
}

}  // namespace troupe::realm
