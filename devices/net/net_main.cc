#include "devices/net/net_main.h"

#include <kj/debug.h>
#include <malloc.h>

#include <cstring>

#include "devices/net/host_end.h"
#include "devices/net/net.capnp.h"
#include "devices/net/net_engine.h"
#include "devices/virtio/device_main.h"

namespace troupe::net {
namespace {

class JailedProcess final: public NetProcess {
 public:
  explicit JailedProcess(sandbox::ActorSetup& setup) : setup(setup) {}

  kj::AutoCloseFd keep(kj::StringPtr name, uint32_t index, kj::AutoCloseFd fd) override {
    return kj::AutoCloseFd(setup.place(name, index, fd));
  }
  void confineThread() override { setup.enter("thread:queue"); }

 private:
  sandbox::ActorSetup& setup;
};

NetOptions::Rate rateOf(NetConfig::RateLimit::Reader rate) {
  return {rate.getBytesPerSecond(), rate.getBurstBytes(), rate.getFramesPerSecond(),
          rate.getBurstFrames()};
}

// Without headers nobody can be told of what is left to do.
Offloads offloadsOf(NetConfig::Reader config) {
  Offloads result;
  bool headers =
      config.getBackend() == NetConfig::Backend::TAP ||
      (config.getBackend() == NetConfig::Backend::PACKETS && config.getSocketHasHeaders());
  auto offloads = config.getOffloads();
  if (!headers || !offloads.getChecksum()) return result;
  result.checksum = true;
  result.tso4 = offloads.getTso4();
  result.tso6 = offloads.getTso6();
  result.ecn = offloads.getEcn() && (result.tso4 || result.tso6);
  result.ufo = offloads.getUfo();
  result.uso4 = result.uso6 = offloads.getUso();
  return result;
}

NetOptions optionsOf(NetConfig::Reader config) {
  NetOptions options;
  auto mac = config.getMac();
  KJ_REQUIRE(mac.size() == sizeof(options.mac),
             "TRP-net-101: the address of a network device has 6 bytes", mac.size());
  memcpy(options.mac.bytes, mac.begin(), mac.size());
  options.mtu = config.getMtu();
  options.offloads = offloadsOf(config);
  options.spinMicros = config.getSpinMicroseconds();
  options.linkUp = !config.getLinkDown();
  options.spoofFilter = config.getSpoofFilter();
  options.receiveRate = rateOf(config.getReceiveRate());
  options.transmitRate = rateOf(config.getTransmitRate());
  return options;
}

// Where a capture keeps its end: behind what the driver says.
kj::Maybe<uint64_t&> captureEndIn(virtio::EngineMemory kept) {
  if (kept.size() == 0) return nullptr;
  KJ_REQUIRE(kept.size() >= KeptState::BYTES + sizeof(uint64_t), kept.size());
  return *reinterpret_cast<uint64_t*>(kept.begin() + KeptState::BYTES);
}

}  // namespace

int netMain() {
  // The pairs' threads need no heap of their own each.
  mallopt(M_ARENA_MAX, 1);
  return virtio::keepingDeviceMain(
      [](kj::AsyncIoContext& io, sandbox::ActorSetup& setup, virtio::EngineMemory kept) {
        auto config = setup.config<NetConfig>();
        auto options = optionsOf(config);
        auto end = kj::heap<HostEnd>(config, setup, captureEndIn(kept));
        JailedProcess process(setup);
        kj::Own<virtio::DeviceEngine> engine =
            kj::heap<NetEngine>(io.unixEventPort, end->host(), options, process, kept);
        return engine.attach(kj::mv(end));
      });
}

}  // namespace troupe::net
