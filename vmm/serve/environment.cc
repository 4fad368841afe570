#include "vmm/serve/environment.h"

#include <kj/debug.h>

#include "vmm/actors/child_log.h"
#include "vmm/files/run_folder.h"
#include "vmm/words/error_codes.h"
#include "vmm/words/quote.h"
#include "vmm/words/user_error.h"

namespace troupe::realm {

Environment::Environment(Environments& all, uint32_t id, kj::StringPtr label, Kept kept,
                         RealmTerms terms)
    : all(all),
      number(id),
      text(kj::heapString(label)),
      kept(kept),
      permitted(kj::mv(terms)),
      exchange(kj::refcounted<VsockExchange>(all.io.provider->getTimer())) {}

kj::Own<Instance> Environment::launch(kj::StringPtr label, LaunchOrder order) {
  if (isOver || all == nullptr) {
    UserError(codes::REALM_OVER, kj::str("realm ", number, " has ended, and launches no more"))
        .raise();
  }
  auto& realms = KJ_ASSERT_NONNULL(all);
  if (realms.guestCount >= Environments::MOST_GUESTS) {
    UserError(codes::TOO_MANY_GUESTS, kj::str("there are ", Environments::MOST_GUESTS,
                                              " guests in all realms, and no more at once"))
        .advice("see", "troupe list")
        .raise();
  }
  uint32_t cid = nextCid++;
  auto instance = kj::refcounted<Instance>(Instance::Maker(), cid, label);
  living.emplace(cid, kj::addRef(*instance));
  realms.begin(*this, kj::addRef(*instance), [this, order = kj::mv(order)](uint32_t cid) mutable {
    auto begin = order.begin;
    auto start = prepare(cid, kj::mv(order));
    start.begin = begin;
    return start;
  });
  return instance;
}

VmStart Environment::prepare(uint32_t cid, LaunchOrder order) {
  auto info = order.info->getRoot<LaunchInfo>().asReader();
  KJ_IF_MAYBE (own, order.own) {
    return startOf(info, (*own)->getRoot<VmConfig>().asReader());
  }
  auto place = kj::heap<VmPlace>(kj::str("r", number, "-", cid), VmPlace::IfTaken::TAKE_ANOTHER);
  GuestPlace where = {kj::str(place->name()), cid, place->serialSocket(), place->consoleSocket()};
  auto start = startOf(info, kj::mv(order.fds), where, permitted);
  if (start.plan.vsock != nullptr) start.neighbours = exchange->join(cid);
  start.place = kj::mv(place);
  return start;
}

kj::Maybe<Instance&> Environment::find(uint32_t cid) {
  auto found = living.find(cid);
  if (found == living.end()) return nullptr;
  return *found->second;
}

void Environment::end(kj::StringPtr reason) {
  isOver = true;
  for (auto& one : living)
    one.second->stop(kj::heapString(reason));
}

void Environment::abandoned() {
  if (kept == Kept::NO) end("stopped: nobody is connected to its realm any more");
  KJ_IF_MAYBE (realms, all) {
    realms->removeGone();
  }
}

Environments::Environments(kj::AsyncIoContext& io, Stage& stage)
    : io(io), stage(stage), lives(*this) {}

Environments::~Environments() noexcept(false) {
  for (auto& one : realms)
    one.second->all = nullptr;
}

Environment& Environments::create(kj::StringPtr label, Environment::Kept kept, RealmTerms terms) {
  if (isOver) {
    UserError(codes::REALM_OVER, kj::str("all realms end here, and there are no more")).raise();
  }
  if (realms.size() >= MOST_REALMS) {
    UserError(codes::TOO_MANY_REALMS,
              kj::str("there are ", MOST_REALMS, " realms, and no more at once"))
        .raise();
  }
  uint32_t id = nextId++;
  auto realm = kj::refcounted<Environment>(*this, id, label, kept, kj::mv(terms));
  return *realms.emplace(id, kj::mv(realm)).first->second;
}

kj::Maybe<Environment&> Environments::find(uint32_t id) {
  auto found = realms.find(id);
  if (found == realms.end() || found->second->isOver) return nullptr;
  return *found->second;
}

kj::Vector<Environment*> Environments::list() {
  kj::Vector<Environment*> found;
  for (auto& one : realms) {
    if (!one.second->isOver) found.add(one.second.get());
  }
  return found;
}

kj::Promise<void> Environments::end(kj::StringPtr reason) {
  isOver = true;
  for (auto& one : realms)
    one.second->end(reason);
  return lives.onEmpty();
}

void Environments::begin(Environment& realm, kj::Own<Instance> instance,
                         Instance::Prepare prepare) {
  ++guestCount;
  auto& one = *instance;
  lives.add(one.live(io, stage, kj::mv(prepare))
                .then([this, &realm, cid = one.cid()]() {
                  --guestCount;
                  realm.living.erase(cid);
                  removeGone();
                })
                .attach(kj::mv(instance)));
}

// Those that are over and have nobody left.
void Environments::removeGone() {
  for (auto one = realms.begin(); one != realms.end();) {
    one = one->second->isGone() ? realms.erase(one) : std::next(one);
  }
}

void Environments::taskFailed(kj::Exception&& failure) {
  printError(kj::str("troupe: a guest's life: ", escape(failure.getDescription()), "\n"));
}

}  // namespace troupe::realm
