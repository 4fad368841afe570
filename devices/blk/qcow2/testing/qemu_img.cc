#include "devices/blk/qcow2/testing/qemu_img.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/vector.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

namespace troupe::blk::qcow2::testing {

QemuFolder::QemuFolder(kj::StringPtr place) {
  auto pattern = kj::str(place, "/qcow2-XXXXXX");
  KJ_REQUIRE(mkdtemp(pattern.begin()) != nullptr);
  folder = kj::mv(pattern);
}

QemuFolder::~QemuFolder() {
  if (system(kj::str("rm -r ", folder).cStr()) != 0) KJ_LOG(ERROR, "a folder stays behind", folder);
}

int QemuFolder::status(kj::StringPtr line) {
  int result = system(kj::str("cd ", folder, " && { ", line, "; } >output 2>&1").cStr());
  return WIFEXITED(result) ? WEXITSTATUS(result) : 255;
}

kj::String QemuFolder::run(kj::StringPtr line) {
  int result = status(line);
  auto output = kj::heapString(load("output").asChars());
  KJ_REQUIRE(result == 0, line, output);
  return output;
}

kj::Array<kj::byte> QemuFolder::load(kj::StringPtr name) const {
  int fd;
  KJ_SYSCALL(fd = open(path(name).cStr(), O_RDONLY | O_CLOEXEC), name);
  kj::AutoCloseFd file(fd);
  struct stat info;
  KJ_SYSCALL(fstat(file, &info));
  auto bytes = kj::heapArray<kj::byte>(info.st_size);
  if (bytes.size() > 0) kj::FdInputStream(file.get()).read(bytes.begin(), bytes.size());
  return bytes;
}

void QemuFolder::store(kj::StringPtr name, kj::ArrayPtr<const kj::byte> bytes) const {
  int fd;
  KJ_SYSCALL(fd = open(path(name).cStr(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), name);
  kj::AutoCloseFd file(fd);
  kj::FdOutputStream(file.get()).write(bytes.begin(), bytes.size());
}

kj::Array<kj::byte> QemuFolder::disk(kj::StringPtr name) {
  run(kj::str("qemu-img convert -f qcow2 -O raw ", name, " disk.raw"));
  return load("disk.raw");
}

kj::String QemuFolder::check(kj::StringPtr name) {
  switch (status(kj::str("qemu-img check -f qcow2 ", name))) {
    case 0:
      return kj::str("");
    case 3:
      return kj::str("leaks");
    default:
      return kj::heapString(load("output").asChars());
  }
}

}  // namespace troupe::blk::qcow2::testing
