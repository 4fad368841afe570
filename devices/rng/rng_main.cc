#include "devices/rng/rng_main.h"

#include "devices/rng/rng.capnp.h"
#include "devices/rng/rng_engine.h"
#include "devices/virtio/device_main.h"

namespace troupe::rng {

int rngMain() {
  return virtio::deviceMain([](kj::AsyncIoContext& io, sandbox::ActorSetup& setup) {
    auto config = setup.config<RngConfig>();
    RngRate rate{config.getBytesPerSecond(), config.getBurstBytes(), config.getRequestsPerSecond(),
                 config.getBurstRequests()};
    return kj::heap<RngEngine>(io.unixEventPort, rate);
  });
}

}  // namespace troupe::rng
