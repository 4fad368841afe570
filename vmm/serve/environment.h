#pragma once

#include <kj/async-io.h>
#include <kj/refcount.h>
#include <kj/vector.h>

#include <map>

#include "vmm/realm/launch.h"
#include "vmm/serve/instance.h"
#include "vmm/serve/vsock_exchange.h"

namespace troupe::realm {

class Environments;

// A realm: guests that know each other, with numbers from 3. Ends with its last holder, and its
// guests with it, unless it is kept. Lives for as long as anybody holds it: a call may outlive all
// realms.
class Environment final: public kj::Refcounted {
 public:
  enum class Kept { NO, YES };

  Environment(Environments& all, uint32_t id, kj::StringPtr label, Kept kept, RealmTerms terms);
  KJ_DISALLOW_COPY(Environment);

  uint32_t id() const { return number; }
  kj::StringPtr label() const { return text; }
  const RealmTerms& terms() const { return permitted; }
  VsockExchange& sockets() { return *exchange; }

  // Gives the guest its number and returns; it starts from the loop. Throws a user error when the
  // realm is over, or as many guests live as may. What is wrong with the order its end says.
  kj::Own<Instance> launch(kj::StringPtr label, LaunchOrder order);

  // Those that have not ended, by their cids.
  std::map<uint32_t, kj::Own<Instance>>& guests() { return living; }
  kj::Maybe<Instance&> find(uint32_t cid);

  // Ends all guests. There will be no more.
  void end(kj::StringPtr reason);

  // While one of these lives somebody is connected.
  class Hold {
   public:
    explicit Hold(Environment& realm) : realm(kj::addRef(realm)) { ++realm.holders; }
    ~Hold() noexcept(false) {
      if (--realm->holders == 0) realm->abandoned();
    }
    KJ_DISALLOW_COPY(Hold);

   private:
    kj::Own<Environment> realm;
  };

 private:
  friend class Environments;
  VmStart prepare(uint32_t cid, LaunchOrder order);
  void abandoned();
  bool isGone() const { return isOver && living.size() == 0 && holders == 0; }

  static constexpr uint32_t FIRST_CID = 3;  // 0 and 1 are nobody's, 2 is the host

  kj::Maybe<Environments&> all;  // until those are gone
  const uint32_t number;
  const kj::String text;
  const Kept kept;
  const RealmTerms permitted;
  kj::Own<VsockExchange> exchange;
  uint32_t nextCid = FIRST_CID;
  uint32_t holders = 0;
  bool isOver = false;
  std::map<uint32_t, kj::Own<Instance>> living;
};

// The model behind every front end, and all realms of this process.
class Environments final: private kj::TaskSet::ErrorHandler {
 public:
  static constexpr uint32_t MOST_REALMS = 256;
  static constexpr uint32_t MOST_GUESTS = 1024;  // of all realms

  Environments(kj::AsyncIoContext& io, Stage& stage);
  ~Environments() noexcept(false);
  KJ_DISALLOW_COPY(Environments);

  // Throws a user error where there are too many, and after end(). Lives until it is over and
  // nobody holds it; the caller takes a hold before the loop turns.
  Environment& create(kj::StringPtr label, Environment::Kept kept, RealmTerms terms);

  kj::Maybe<Environment&> find(uint32_t id);
  kj::Vector<Environment*> list();  // those that are not over

  // Ends all of them. Resolves when no guest is left.
  kj::Promise<void> end(kj::StringPtr reason);

 private:
  friend class Environment;
  void begin(Environment& realm, kj::Own<Instance> instance, Instance::Prepare prepare);
  void removeGone();
  void taskFailed(kj::Exception&& failure) override;

  kj::AsyncIoContext& io;
  Stage& stage;
  bool isOver = false;
  uint32_t nextId = 0;
  uint32_t guestCount = 0;
  std::map<uint32_t, kj::Own<Environment>> realms;
  kj::TaskSet lives;
};

}  // namespace troupe::realm
