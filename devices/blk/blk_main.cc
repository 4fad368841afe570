#include "devices/blk/blk_main.h"

#include <kj/debug.h>
#include <kj/vector.h>
#include <malloc.h>

#include <cstring>

#include "devices/blk/blk.capnp.h"
#include "devices/blk/blk_engine.h"
#include "devices/blk/blk_wire.h"
#include "devices/blk/disk.h"
#include "devices/blk/image_disk.h"
#include "devices/blk/kept_file.h"
#include "devices/blk/volatile_disk.h"
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

qcow2::ImageFormat formatOf(BlkConfig::Format format) {
  return format == BlkConfig::Format::RAW ? qcow2::ImageFormat::RAW : qcow2::ImageFormat::QCOW2;
}

// Of a process that is replaced when it dies.
kj::Own<KeptFile> keptFile(sandbox::ActorSetup& setup) {
  if (setup.fdCount("kept") == 0) return {};
  return kj::heap<KeptFile>(setup.fd("kept"));
}

kj::Own<ImageDisk> openImage(BlkConfig::Reader config, Disk& disk, sandbox::ActorSetup& setup,
                             kj::ArrayPtr<kj::byte> kept) {
  auto configs = config.getBacking();
  KJ_REQUIRE(configs.size() == setup.fdCount("backing"),
             "each backing file has an fd and a place in the configuration");
  kj::Vector<ImageDisk::Backing> backing;
  for (uint32_t i = 0; i < configs.size(); i++) {
    backing.add(ImageDisk::Backing{setup.fd("backing", i), formatOf(configs[i].getFormat()),
                                   configs[i].getPath()});
  }
  auto owner = setup.isSuccessor() ? ImageDisk::Owner::ONE_BEFORE : ImageDisk::Owner::THIS_PROCESS;
  return kj::heap<ImageDisk>(disk, config.getPath(), backing, kept, owner);
}

// A disk as a recording found it. Its config space comes from a stranger.
kj::Own<Disk> recordedDisk(int fd, BlkConfig::Reader config, BlkOptions& options) {
  virtio::BlkConfigSpace space;
  KJ_REQUIRE(config.getReplayed().size() == sizeof(space), "TRP-blk-004: no recorded disk is so");
  memcpy(&space, config.getReplayed().begin(), sizeof(space));
  KJ_REQUIRE(space.capacity <= UINT64_MAX / virtio::BLK_SECTOR_BYTES);
  options.discardAlignment = space.discardSectorAlignment;
  DiskShape shape{space.capacity * virtio::BLK_SECTOR_BYTES, space.blockSize, config.getReadOnly()};
  Disk::Topology topology{space.physicalBlockExponent, space.alignmentOffset, space.minIoSize,
                          space.optIoSize};
  return kj::heap<Disk>(fd, shape, topology);
}

}  // namespace

int blkMain() {
  // Queue threads allocate once, before they serve: they need no heap of their own each.
  mallopt(M_ARENA_MAX, 1);
  return virtio::deviceMain([](kj::AsyncIoContext& io, sandbox::ActorSetup& setup) {
    auto config = setup.config<BlkConfig>();
    JailedProcess process(setup);
    auto options = optionsOf(config);
    if (config.getReplayed().size() > 0) {
      auto disk = recordedDisk(setup.fd("disk"), config, options);
      kj::Own<virtio::DeviceEngine> engine =
          kj::heap<BlkEngine>(io.unixEventPort, *disk, options, process);
      return engine.attach(kj::mv(disk));
    }
    bool isVolatile = config.getVolatileBytes() > 0;
    auto access =
        config.getReadOnly() || isVolatile ? Disk::Access::READ_ONLY : Disk::Access::READ_WRITE;
    RingRules rings{setup.ioUringOpcodes(), setup.ioUringSqeFlags(), -1};
    if (setup.fdCount("witness") > 0) rings.witness = setup.fd("witness");
    bool isRaw = config.getFormat() == BlkConfig::Format::RAW;
    auto contents = isRaw ? Disk::Contents::RAW : Disk::Contents::IMAGE;
    if (setup.fdCount("before") > 0) options.before = setup.fd("before");
    auto disk = kj::heap<Disk>(setup.fd("disk"), access, rings, contents);
    auto kept = keptFile(setup);
    kj::Own<ImageDisk> image;
    if (!isRaw) {
      bool keepsMappings = kept.get() != nullptr && !isVolatile;
      image = openImage(config, *disk, setup, keepsMappings ? kept->memory() : nullptr);
      options.image = image;
    }
    kj::Own<VolatileDisk> overlay;
    if (isVolatile) {
      kj::Maybe<const KeptFile&> bits = kept.get();
      overlay = kj::heap<VolatileDisk>(setup.fd("overlay"), *disk, options.image,
                                       config.getVolatileBytes(), bits);
      if (!setup.isSuccessor()) overlay->takeOver();
      options.overlay = overlay;
    }
    kj::Own<virtio::DeviceEngine> engine =
        kj::heap<BlkEngine>(io.unixEventPort, *disk, options, process);
    return engine.attach(kj::mv(overlay), kj::mv(image), kj::mv(disk), kj::mv(kept));
  });
}

}  // namespace troupe::blk
