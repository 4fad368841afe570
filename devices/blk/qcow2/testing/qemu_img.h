#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

namespace troupe::blk::qcow2::testing {

// A folder of a test, gone with it, in which QEMU's tools run.
class QemuFolder {
 public:
  // In a folder of the host's, whose file system decides how files in it are served.
  explicit QemuFolder(kj::StringPtr place = "/dev/shm");
  ~QemuFolder();
  KJ_DISALLOW_COPY(QemuFolder);

  // Runs a shell line there and returns what it prints; throws if it fails.
  kj::String run(kj::StringPtr line);
  int status(kj::StringPtr line);

  kj::String path(kj::StringPtr name) const { return kj::str(folder, "/", name); }
  kj::Array<kj::byte> load(kj::StringPtr name) const;
  void store(kj::StringPtr name, kj::ArrayPtr<const kj::byte> bytes) const;

  // The disk in an image, as qemu-img reads it.
  kj::Array<kj::byte> disk(kj::StringPtr name);
  // What `qemu-img check` has against it: "" when nothing, "leaks" when nothing but those.
  kj::String check(kj::StringPtr name);

 private:
  kj::String folder;
};

}  // namespace troupe::blk::qcow2::testing
