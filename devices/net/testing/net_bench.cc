#include "devices/net/testing/net_bench.h"

#include <kj/debug.h>

#include <cstring>

namespace troupe::net::testing {

NetBench::NetBench(const Options& options)
    : NetDriver(options.pairs, options.ringSize),
      device(ram, [&](kj::AsyncIoContext& io) { return makeEngine(io, options); }) {
  device.attach();
  if (options.activated) activate(device, options.features);
}

NetBench::~NetBench() noexcept(false) {
  device.reset();
}

kj::Own<virtio::DeviceEngine> NetBench::makeEngine(kj::AsyncIoContext& io, const Options& options) {
  NetEngine::Host host;
  host.backends = kj::heapArray<Backend*>(options.pairs);
  for (uint16_t i = 0; i < options.pairs; i++) {
    auto& cable = *cables.add(kj::heap<Cable>(options.socketType));
    if (options.socketType == SOCK_STREAM) {
      backends.add(kj::heap<StreamBackend>(cable.device));
    } else {
      backends.add(kj::heap<FrameBackend>(cable.device, options.headers
                                                            ? FrameBackend::Headers::FIRST
                                                            : FrameBackend::Headers::NONE));
    }
    host.backends[i] = backends.back().get();
  }
  if (options.capture >= 0) {
    host.capture = capture
                       .emplace(kj::heap<Capture>(options.capture, options.captureBytes,
                                                  options.captureFrameBytes))
                       .get();
  }
  NetOptions of = options.device;
  of.mac = OWN;
  if (options.headers) {
    of.offloads.checksum = of.offloads.tso4 = of.offloads.tso6 = of.offloads.ecn = true;
  }
  return kj::heap<NetEngine>(io.unixEventPort, kj::mv(host), of, process);
}

Bytes NetBench::waitForFrame(uint16_t pair) {
  Bytes frame;
  device.waitUntil([&] {
    KJ_IF_MAYBE (got, peer(pair).receive()) {
      frame = kj::mv(*got);
      return true;
    }
    return false;
  });
  return frame;
}

bool NetBench::nothingWasSent() {
  auto last = frame(BROADCAST, OWN, 99, 0x99);
  send(last);
  auto got = waitForFrame();
  return got.size() >= last.size() &&
         memcmp(got.end() - last.size(), last.begin(), last.size()) == 0 &&
         got.size() <= last.size() + sizeof(virtio::NetHeader);
}

uint16_t NetBench::status() {
  device.settle();
  uint16_t result = virtio::NET_S_LINK_UP;
  for (auto& change : device.host.configChanges)
    if (change.offset == offsetof(virtio::NetConfigSpace, status)) {
      memcpy(&result, change.data.begin(), sizeof(result));
    }
  return result;
}

}  // namespace troupe::net::testing
