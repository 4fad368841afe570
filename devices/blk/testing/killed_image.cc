#include "devices/blk/testing/killed_image.h"

#include <fcntl.h>
#include <kj/debug.h>

#include "sandbox/shared_memory.h"

namespace troupe::blk::testing {
namespace {

using Kind = KilledImage::Kind;

constexpr const char* DISK_FILE_SYSTEM = "/var/tmp";

const Kind KINDS[] = {
    {"Fresh64K", "qemu-img create -f qcow2 disk $SIZE"},
    {"Fresh4K", "qemu-img create -f qcow2 -o cluster_size=4k disk $SIZE"},
    {"Fresh512", "qemu-img create -f qcow2 -o cluster_size=512 disk $SIZE"},
    {"Cached", "qemu-img create -f qcow2 -o cluster_size=4k disk $SIZE", false, false, false,
     DISK_FILE_SYSTEM},
    {"Direct", "qemu-img create -f qcow2 -o cluster_size=4k disk $SIZE", false, false, false,
     DISK_FILE_SYSTEM, O_DIRECT},
    {"Allocated", "qemu-img convert -f raw -O qcow2 -o cluster_size=16k base.raw disk"},
    {"Backing", "qemu-img create -f qcow2 -o cluster_size=4k -F raw -b base.raw disk", false, true},
    {"Compressed", "qemu-img convert -c -f raw -O qcow2 base.raw disk"},
    {"Lazy", "qemu-img create -f qcow2 -o lazy_refcounts=on,cluster_size=4k disk $SIZE"},
    {"Version2", "qemu-img create -f qcow2 -o compat=0.10,cluster_size=4k disk $SIZE"},
    {"Snapshot",
     "qemu-img convert -f raw -O qcow2 -o cluster_size=4k base.raw disk && "
     "qemu-img snapshot -c one disk"},
    {"VolatileRaw", "cp base.raw disk", true, false, true},
    {"VolatileImage", "qemu-img create -f qcow2 -F raw -b base.raw disk", false, true, true},
};

constexpr uint64_t OVERLAY_BYTES = 1 << 30;  // of addresses

}  // namespace

kj::ArrayPtr<const Kind> KilledImage::kinds() {
  return KINDS;
}

const Kind& KilledImage::kind(kj::StringPtr name) {
  for (auto& kind : KINDS) {
    if (name == kind.name) return kind;
  }
  KJ_FAIL_REQUIRE("no such kind", name);
}

KilledImage::KilledImage(const Kind& kind, uint64_t bytes)
    : what(kind), bytes(bytes), folder(kind.place) {
  folder.store("base.raw", sectors(0, bytes / 512));
  folder.run(kj::str("SIZE=", bytes, "; ", kind.make));
}

kj::AutoCloseFd KilledImage::open(const char* name, int flags) const {
  int fd;
  KJ_SYSCALL(fd = ::open(folder.path(name).cStr(), flags | O_CLOEXEC), name);
  return kj::AutoCloseFd(fd);
}

void KilledImage::handTo(MortalDisk& disk) {
  auto config = disk.config();
  disk.hand("disk", 0, open("disk", (what.isVolatile ? O_RDONLY : O_RDWR) | what.flags));
  if (!what.isRaw) {
    config.setFormat(BlkConfig::Format::QCOW2);
    config.setPath("disk");
  }
  if (what.hasBacking) {
    auto backing = config.initBacking(1);
    backing[0].setPath("base.raw");
    backing[0].setFormat(BlkConfig::Format::RAW);
    disk.hand("backing", 0, open("base.raw", O_RDONLY));
  }
  if (what.isVolatile) {
    config.setVolatileBytes(2 * bytes);
    auto overlay = sandbox::makeSharedMemory("disk-overlay", OVERLAY_BYTES);
    disk.hand("overlay", 0, kj::mv(overlay.writable));
    keptFd = disk.keep((OVERLAY_BYTES / 4096 / 8 * 2 / 4096 + 2) * 4096);
  } else {
    keptFd = disk.keep(BlkConfig::MAPPING_JOURNAL_BYTES);
  }
}

kj::Array<kj::byte> KilledImage::contents() {
  return what.isRaw ? folder.load("disk") : folder.disk("disk");
}

std::string KilledImage::flaws() {
  return what.isRaw ? "" : folder.check("disk").cStr();
}

kj::Array<kj::byte> KilledImage::readAll(MortalDisk& disk, CheckingDriver& driver) {
  constexpr uint32_t STEP = 256 << 10;
  auto all = kj::heapArray<kj::byte>(bytes);
  for (uint64_t at = 0; at < bytes; at += STEP) {
    auto sent = driver.sendRead(at / 512, STEP);
    KJ_ASSERT(driver.wait(disk.process(), sent).status == virtio::BLK_S_OK);
    memcpy(all.begin() + at, driver.data(sent, STEP).begin(), STEP);
  }
  return all;
}

}  // namespace troupe::blk::testing
