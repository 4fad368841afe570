#include "devices/console/console_main.h"

#include "devices/console/console.capnp.h"
#include "devices/console/console_engine.h"
#include "devices/console/open_backend.h"
#include "devices/virtio/device_main.h"

namespace troupe::console {

int consoleMain() {
  prepareProcess();
  return virtio::deviceMain([](kj::AsyncIoContext& io, sandbox::ActorSetup& setup) {
    auto config = setup.config<ConsoleConfig>();
    auto line = kj::heap<Line>(io.provider->getTimer());
    auto backend = openBackend(io.unixEventPort, *line, setup);
    kj::Own<virtio::DeviceEngine> engine =
        kj::heap<ConsoleEngine>(io.unixEventPort, *line, config.getColumns(), config.getRows());
    return engine.attach(kj::mv(backend), kj::mv(line));
  });
}

}  // namespace troupe::console
