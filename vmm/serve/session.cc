#include "vmm/serve/session.h"

#include <kj/debug.h>

namespace troupe::realm {

namespace {

[[noreturn]] void tooMany(kj::StringPtr what, uint32_t most) {
  kj::throwFatalException(
      kj::Exception(kj::Exception::Type::OVERLOADED, __FILE__, __LINE__,
                    kj::str("this connection holds ", most, " ", what, "; drop some first")));
}

}  // namespace

kj::Exception Session::tooLate() {
  return kj::Exception(kj::Exception::Type::FAILED, __FILE__, __LINE__,
                       kj::str("what was promised for this call has not come within ",
                               PATIENCE / kj::SECONDS, " s"));
}

Handle::Client Session::hand(kj::AutoCloseFd fd) {
  if (fds->number >= MOST_FDS) tooMany("sockets", MOST_FDS);
  return kj::heap<CountedHandle>(kj::mv(fd), kj::addRef(*fds));
}

kj::Own<Session::Thing> Session::reserve() {
  return kj::heap<Thing>(*this);
}

Session::Thing::Thing(Session& from) : session(kj::addRef(from)) {
  if (from.things >= MOST_THINGS) {
    session = nullptr;
    tooMany("capabilities", MOST_THINGS);
  }
  ++from.things;
}

}  // namespace troupe::realm
