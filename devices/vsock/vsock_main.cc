#include "devices/vsock/vsock_main.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include "devices/virtio/device_main.h"
#include "devices/vsock/remote_connector.h"
#include "devices/vsock/vsock.capnp.h"
#include "devices/vsock/vsock_engine.h"

namespace troupe::vsock {

namespace {

kj::Array<VsockEngine::Listener> listenersOf(sandbox::ActorSetup& setup) {
  kj::Vector<VsockEngine::Listener> listeners;
  if (setup.fdCount("listen") > 0)
    listeners.add(VsockEngine::Listener{setup.fd("listen"), nullptr});
  auto ports = setup.config<VsockConfig>().getForwards();
  KJ_REQUIRE(ports.size() == setup.fdCount("forward"), "a port for each socket", ports.size());
  for (kj::uint i = 0; i < ports.size(); i++)
    listeners.add(VsockEngine::Listener{setup.fd("forward", i), ports[i]});
  return listeners.releaseAsArray();
}

}  // namespace

int vsockMain() {
  return virtio::keepingDeviceMain([](kj::AsyncIoContext& io, sandbox::ActorSetup& setup,
                                      virtio::EngineMemory kept) {
    auto taker = kj::heap<OfferTaker>();
    auto& offers = *taker;
    auto pipe = kj::heap<ConnectorPipe>(io, setup.fd("connector"), kj::mv(taker));
    auto engine = kj::heap<VsockEngine>(io.unixEventPort, setup.config<VsockConfig>().getGuestCid(),
                                        listenersOf(setup), pipe->connector(), kept);
    offers.serve(*engine);
    return kj::Own<virtio::DeviceEngine>(kj::mv(engine)).attach(kj::mv(pipe));
  });
}

}  // namespace troupe::vsock
