#pragma once

#include <capnp/capability.h>
#include <kj/io.h>
#include <kj/refcount.h>

#include "protos/handle.capnp.h"
#include "vmm/channels/counted_handle.h"
#include "vmm/serve/patient_asker.h"

namespace troupe::realm {

// What one connection may hold of this process at a time. Its front end may be anybody's by now,
// and bounds nothing then.
class Session final: public kj::Refcounted {
 public:
  static constexpr uint32_t MOST_FDS = 64;        // in answers that it has not dropped
  static constexpr uint32_t MOST_THINGS = 512;    // capabilities likewise, and its listeners
  static constexpr uint32_t MOST_CALLS = 64;      // open at once
  static constexpr uint32_t MOST_QUESTIONS = 64;  // to it
  static constexpr kj::Duration PATIENCE = 10 * kj::SECONDS;  // with what it has promised

  explicit Session(kj::Timer& timer)
      : timer(timer), acceptors(kj::refcounted<PatientAsker>(timer, MOST_QUESTIONS)) {}

  // Throws, as making a Thing does, unless there is room for one more. For what must not begin and
  // then be nobody's.
  class Thing;
  kj::Own<Thing> reserve();
  bool hasRoom() const { return things < MOST_THINGS; }

  // How its acceptors are asked, all of them.
  kj::Own<PatientAsker> asker() { return kj::addRef(*acceptors); }

  // What a call waits for that `given` by the client promises, or a failure after PATIENCE: it may
  // have given the answer to the very call, which then would outlive it.
  template <typename T>
  kj::Promise<T> inTime(capnp::Capability::Client given, kj::Promise<T> promised);

  // `fd` on its way to the client, who duplicates it. Throws when it holds as many as it may.
  Handle::Client hand(kj::AutoCloseFd fd);

  // One capability that the client has been given, or gave; counted while this lives.
  class Thing {
   public:
    explicit Thing(Session& session);
    ~Thing() noexcept(false) { --session->things; }
    KJ_DISALLOW_COPY(Thing);

   private:
    kj::Own<Session> session;
  };

 private:
  // A wait for what was promised.
  template <typename T>
  struct Wait: public kj::Refcounted {
    kj::Own<kj::PromiseFulfiller<T>> end;
    kj::Maybe<kj::Promise<void>> going;
  };

  static kj::Exception tooLate();

  kj::Timer& timer;
  kj::Own<PatientAsker> acceptors;
  kj::Own<Count> fds = kj::refcounted<Count>();
  uint32_t things = 0;
};

template <typename T>
kj::Promise<T> Session::inTime(capnp::Capability::Client given, kj::Promise<T> promised) {
  auto pair = kj::newPromiseAndFulfiller<T>();
  auto wait = kj::refcounted<Wait<T>>();
  wait->end = kj::mv(pair.fulfiller);
  auto& end = *wait->end;
  wait->going = promised
                    .then([&end](T&& kept) { end.fulfill(kj::mv(kept)); },
                          [&end](kj::Exception&& why) { end.reject(kj::mv(why)); })
                    .eagerlyEvaluate(nullptr)
                    .attach(kj::mv(given));
  // What the wait holds may own the call and its session, which must not go amid the call's end:
  // the wait goes a little later.
  auto late =
      timer.afterDelay(PATIENCE)
          .then([this, wait = kj::addRef(*wait)]() mutable {
            wait->end->reject(tooLate());
            timer.afterDelay(1 * kj::SECONDS).attach(kj::mv(wait)).detach([](kj::Exception&&) {});
          })
          .eagerlyEvaluate(nullptr);
  return pair.promise.attach(kj::mv(late), kj::mv(wait));
}

}  // namespace troupe::realm
