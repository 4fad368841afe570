// Plays a random number generator that dies of certain requests, for tests of what becomes of
// these.
#include <cstring>

#include "devices/rng/rng_engine.h"
#include "devices/virtio/device_main.h"

namespace troupe {
namespace {

constexpr size_t DEADLY = 1313;            // devices/rng/rng_deadly_test.cc
constexpr size_t DEADLY_TO_PAYLOAD = 256;  // what guest/payload/rng_check.cc asks for

class DeadlySource final: public rng::RandomSource {
 public:
  ssize_t fill(kj::ArrayPtr<kj::byte> bytes) override {
    if (bytes.size() == DEADLY || bytes.size() == DEADLY_TO_PAYLOAD) __builtin_trap();
    memset(bytes.begin(), 7, bytes.size());
    return bytes.size();
  }
};

int deadlyRng() {
  return virtio::deviceMain([](kj::AsyncIoContext& io, sandbox::ActorSetup&) {
    static DeadlySource source;
    return kj::heap<rng::RngEngine>(io.unixEventPort, rng::RngRate(), source);
  });
}

}  // namespace
}  // namespace troupe

int main() {
  return troupe::deadlyRng();
}
