#include "devices/balloon/balloon_main.h"

#include "devices/balloon/balloon.capnp.h"
#include "devices/balloon/balloon_engine.h"
#include "devices/virtio/device_main.h"

namespace troupe::balloon {

int balloonMain() {
  return virtio::keepingDeviceMain(
      [](kj::AsyncIoContext& io, sandbox::ActorSetup& setup, virtio::EngineMemory kept) {
        auto config = setup.config<BalloonConfig>();
        return kj::heap<BalloonEngine>(io.unixEventPort, config.getStatistics(), kept);
      });
}

}  // namespace troupe::balloon
