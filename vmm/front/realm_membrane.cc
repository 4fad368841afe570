#include "vmm/front/realm_membrane.h"

#include <capnp/schema.h>

#include "protos/handle.capnp.h"
#include "tests/fuzz/planted.h"

namespace troupe::front {

namespace {

template <typename... Interfaces>
bool isMethodOfAny(uint64_t interfaceId, uint16_t methodId) {
  return ((capnp::typeId<Interfaces>() == interfaceId &&
           methodId < capnp::Schema::from<Interfaces>().getMethods().size()) ||
          ...);
}

// What is on the other side of the membrane, of which nothing passes but its fd: so there is
// nothing to be called.
class PassedFd final: public Handle::Server {
 public:
  PassedFd(capnp::Capability::Client other, int fd) : other(kj::mv(other)), fd(fd) {}
  kj::Maybe<int> getFd() override { return fd; }

 private:
  capnp::Capability::Client other;  // owns it
  int fd;
};

kj::Maybe<capnp::Capability::Client> passFd(capnp::Capability::Client& other) {
  auto hook = capnp::ClientHook::from(other);
  KJ_IF_MAYBE (fd, hook->getFd()) {
    return capnp::Capability::Client(Handle::Client(kj::heap<PassedFd>(other, *fd)));
  }
  return nullptr;
}

// What is asked in the place of who has no such call: it refuses, and the connection goes on.
capnp::Capability::Client nobody() {
  return kj::Exception(kj::Exception::Type::UNIMPLEMENTED, __FILE__, __LINE__,
                       kj::str("realms have no such call"));
}

class RealmMembrane final: public capnp::MembranePolicy, public kj::Refcounted {
 public:
  // From the client.
  kj::Maybe<capnp::Capability::Client> inboundCall(uint64_t interfaceId, uint16_t methodId,
                                                   capnp::Capability::Client) override {
    using namespace realm;
    bool isCall = isMethodOfAny<Manager, Realm, Guest, BalloonController, HostVsockEndpoint>(
        interfaceId, methodId);
    if (!isCall && !fuzz::isPlanted(fuzz::Bug::ANY_CALL)) return nobody();
    return nullptr;
  }

  // To what the client implements.
  kj::Maybe<capnp::Capability::Client> outboundCall(uint64_t interfaceId, uint16_t methodId,
                                                    capnp::Capability::Client) override {
    using namespace realm;
    if (!isMethodOfAny<HostVsockAcceptor, WaylandDispatcher>(interfaceId, methodId))
      return nobody();
    return nullptr;
  }

  capnp::Capability::Client importExternal(capnp::Capability::Client external) override {
    KJ_IF_MAYBE (handle, passFd(external)) {
      return kj::mv(*handle);
    }
    return MembranePolicy::importExternal(kj::mv(external));
  }

  capnp::Capability::Client exportInternal(capnp::Capability::Client internal) override {
    KJ_IF_MAYBE (handle, passFd(internal)) {
      return kj::mv(*handle);
    }
    return MembranePolicy::exportInternal(kj::mv(internal));
  }

  kj::Own<capnp::MembranePolicy> addRef() override { return kj::addRef(*this); }
};

}  // namespace

kj::Own<capnp::MembranePolicy> makeRealmMembrane() {
  return kj::refcounted<RealmMembrane>();
}

}  // namespace troupe::front
