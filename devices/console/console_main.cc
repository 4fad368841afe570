#include "devices/console/console_main.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include "devices/console/console.capnp.h"
#include "devices/console/console_engine.h"
#include "devices/console/open_backend.h"
#include "devices/virtio/device_main.h"

namespace troupe::console {

namespace {

Port portOf(Line& line, Backend& backend, ConsolePort::Reader config) {
  return {line,
          config.getPlain() ? PortKind::SERIAL : PortKind::CONSOLE,
          kj::str(config.getName()),
          config.getColumns(),
          config.getRows(),
          config.getFollowsTerminal(),
          backend};
}

}  // namespace

int consoleMain() {
  prepareProcess();
  return virtio::keepingDeviceMain([](kj::AsyncIoContext& io, sandbox::ActorSetup& setup,
                                      virtio::EngineMemory kept) {
    auto configs = setup.config<ConsoleConfig>().getPorts();
    KJ_REQUIRE(configs.size() <= MOST_PORTS, "more ports than there are fds for", configs.size());
    auto keptMemory = keptPorts(kept, configs.size());
    kj::Vector<kj::Own<Line>> lines;
    kj::Vector<kj::Own<Backend>> backends;
    kj::Vector<Port> ports;
    for (auto config : configs) {
      auto& timer = io.provider->getTimer();
      auto& line =
          *lines.add(keptMemory.size() == 0 ? kj::heap<Line>(timer)
                                            : kj::heap<Line>(timer, keptMemory[lines.size()]));
      if (setup.isSuccessor()) line.ours.set(false);
      auto& backend = *backends.add(openBackend(io.unixEventPort, line, setup, config));
      ports.add(portOf(line, backend, config));
    }
    kj::Own<virtio::DeviceEngine> engine =
        kj::heap<ConsoleEngine>(io.unixEventPort, ports.releaseAsArray());
    return engine.attach(kj::mv(backends), kj::mv(lines));
  });
}

}  // namespace troupe::console
