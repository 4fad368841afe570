#pragma once

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

  explicit Session(kj::Timer& timer)
      : acceptors(kj::refcounted<PatientAsker>(timer, MOST_QUESTIONS)) {}

  // Throws, as making a Thing does, unless there is room for one more. For what must not begin and
  // then be nobody's.
  class Thing;
  kj::Own<Thing> reserve();
  bool hasRoom() const { return things < MOST_THINGS; }

  // How its acceptors are asked, all of them.
  kj::Own<PatientAsker> asker() { return kj::addRef(*acceptors); }

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
  kj::Own<PatientAsker> acceptors;
  kj::Own<Count> fds = kj::refcounted<Count>();
  uint32_t things = 0;
};

}  // namespace troupe::realm
