#include "devices/virtio/testing/device_bench.h"

#include <fcntl.h>
#include <kj/debug.h>

#include "protos/handle.capnp.h"

namespace troupe::virtio::testing {

int FakeJail::place(kj::StringPtr name, uint32_t, int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 0));
  places.add(Place{kj::heapString(name), kj::AutoCloseFd(copy)});
  return copy;
}

void FakeJail::close(kj::StringPtr name) {
  for (Place& place : places) {
    if (place.name == name) place.fd = nullptr;
  }
}

InProcessDevice::InProcessDevice(MakeEngine makeEngine, kj::ArrayPtr<kj::byte> journals)
    : engine(makeEngine(io)) {
  auto pipe = io.provider->newCapabilityPipe();
  deviceEnd = kj::mv(pipe.ends[0]);
  brokerEnd = kj::mv(pipe.ends[1]);
  rpc = kj::heap<capnp::TwoPartyClient>(
      *deviceEnd, MAX_FDS_PER_MESSAGE,
      Device::Client(
          kj::heap<DeviceActor>(*engine, jail, journals, nullptr, nullptr, nullptr, pulse)),
      capnp::rpc::twoparty::Side::SERVER);
}

InProcessDevice::~InProcessDevice() noexcept(false) {}

DeviceBench::DeviceBench(FakeRam& ram, MakeEngine makeEngine, kj::ArrayPtr<kj::byte> journals)
    : InProcessDevice(kj::mv(makeEngine), journals),
      FakeBroker(io, ram, kj::mv(brokerEnd), engine->describe().queueSizes.size()) {}

}  // namespace troupe::virtio::testing
