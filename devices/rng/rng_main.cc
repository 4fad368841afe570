#include "devices/rng/rng_main.h"

#include "devices/rng/rng_engine.h"
#include "devices/virtio/device_main.h"

namespace troupe::rng {

int rngMain() {
  return virtio::deviceMain([](kj::AsyncIoContext& io, sandbox::ActorSetup&) {
    return kj::heap<RngEngine>(io.unixEventPort);
  });
}

}  // namespace troupe::rng
