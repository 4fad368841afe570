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

class Session::HeldFd final: public Handle::Server {
 public:
  HeldFd(kj::Own<Session> session, kj::AutoCloseFd fd) : session(kj::mv(session)), fd(kj::mv(fd)) {
    ++this->session->fds;
  }
  ~HeldFd() noexcept(false) { --session->fds; }
  KJ_DISALLOW_COPY(HeldFd);

  kj::Maybe<int> getFd() override { return fd.get(); }

 private:
  kj::Own<Session> session;
  kj::AutoCloseFd fd;
};

Handle::Client Session::hand(kj::AutoCloseFd fd) {
  if (fds >= MOST_FDS) tooMany("sockets", MOST_FDS);
  return kj::heap<HeldFd>(kj::addRef(*this), kj::mv(fd));
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
