#pragma once

#include <kj/array.h>
#include <kj/io.h>
#include <kj/string.h>

#include <string>

#include "devices/blk/qcow2/testing/qemu_img.h"
#include "devices/blk/testing/checking_driver.h"
#include "devices/blk/testing/mortal_disk.h"

namespace troupe::blk::testing {

// A disk for a MortalDisk, in an image of qemu-img's or with a volatile layer above.
class KilledImage {
 public:
  struct Kind {
    const char* name;
    const char* make;         // shell: makes "disk", $SIZE bytes large, with "base.raw" beside it
    bool isRaw = false;       // otherwise qcow2
    bool hasBacking = false;  // base.raw
    bool isVolatile = false;
    const char* place = "/dev/shm";
    int flags = 0;  // of open()

    // Its counts may be wrong while it is marked dirty.
    bool isLazy() const { return kj::StringPtr(name) == "Lazy"; }
  };
  static kj::ArrayPtr<const Kind> kinds();
  static const Kind& kind(kj::StringPtr name);

  KilledImage(const Kind& kind, uint64_t bytes);

  // Configures `disk` with it and hands over what it needs.
  void handTo(MortalDisk& disk);
  // The memory that handTo() gave it beside its journals, a loan.
  int kept() const { return keptFd; }

  // As qemu-img finds it.
  kj::Array<kj::byte> contents();
  std::string flaws();
  kj::Array<kj::byte> file() const { return folder.load("disk"); }
  // As a driver reads it, of a disk that is served and has nothing else to do.
  kj::Array<kj::byte> readAll(MortalDisk& disk, CheckingDriver& driver);

 private:
  kj::AutoCloseFd open(const char* name, int flags) const;

  const Kind what;
  const uint64_t bytes;
  qcow2::testing::QemuFolder folder;
  int keptFd = -1;
};

}  // namespace troupe::blk::testing
