#include "devices/blk/blk_main.h"

#include <malloc.h>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_engine.h"
#include "devices/blk/disk.h"
#include "devices/virtio/device_main.h"

namespace troupe::blk {
namespace {

class JailedProcess final: public BlkProcess {
 public:
  explicit JailedProcess(sandbox::ActorSetup& setup) : setup(setup) {}

  kj::AutoCloseFd keep(kj::StringPtr name, uint32_t index, kj::AutoCloseFd fd) override {
    return kj::AutoCloseFd(setup.place(name, index, fd));
  }
  void confineThread() override { setup.enter("thread:queue"); }

 private:
  sandbox::ActorSetup& setup;
};

BlkOptions optionsOf(BlkConfig::Reader config) {
  BlkOptions options;
  options.id = config.getId();
  options.queues = config.getQueues();
  options.spinMicros = config.getSpinMicroseconds();
  auto rate = config.getRate();
  options.bytesPerSecond = rate.getBytesPerSecond();
  options.burstBytes = rate.getBurstBytes();
  options.requestsPerSecond = rate.getRequestsPerSecond();
  options.burstRequests = rate.getBurstRequests();
  return options;
}

}  // namespace

int blkMain() {
  // Queue threads allocate once, before they serve: they need no heap of their own each.
  mallopt(M_ARENA_MAX, 1);
  return virtio::deviceMain([](kj::AsyncIoContext& io, sandbox::ActorSetup& setup) {
    auto config = setup.config<BlkConfig>();
    auto access = config.getReadOnly() ? Disk::Access::READ_ONLY : Disk::Access::READ_WRITE;
    RingRules rings{setup.ioUringOpcodes(), setup.ioUringSqeFlags()};
    auto disk = kj::heap<Disk>(setup.fd("disk"), access, rings);
    JailedProcess process(setup);
    kj::Own<virtio::DeviceEngine> engine =
        kj::heap<BlkEngine>(io.unixEventPort, *disk, optionsOf(config), process);
    return engine.attach(kj::mv(disk));
  });
}

}  // namespace troupe::blk
