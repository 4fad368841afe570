#include "sandbox/shared_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sandbox/errno_text.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3; Debian 12's headers are older
#endif

namespace troupe::sandbox {
namespace {

[[noreturn]] void refuse(kj::StringPtr step) {
  int error = errno;
  KJ_FAIL_REQUIRE(
      kj::str("TRP-host-102: the kernel refuses guest memory (", step, "): ", errnoText(error)));
}

int makeMemfd(const char* name) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  return fd;
}

}  // namespace

SharedMemory makeSharedMemory(const char* name, uint64_t bytes) {
  auto memory = makeUnsizedMemory(name);
  fixSize(memory, bytes);
  return memory;
}

void fixSize(const SharedMemory& memory, uint64_t bytes) {
  if (ftruncate(memory.writable, bytes) < 0) refuse("ftruncate");
  if (fcntl(memory.writable, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
    refuse("F_ADD_SEALS");
  }
}

SharedMemory makeUnsizedMemory(const char* name) {
  SharedMemory memory;
  memory.writable = kj::AutoCloseFd(makeMemfd(name));
  if (memory.writable == nullptr) refuse("memfd_create");
  auto path = kj::str("/proc/self/fd/", memory.writable.get());
  memory.readOnly = kj::AutoCloseFd(open(path.cStr(), O_RDONLY | O_CLOEXEC));
  if (memory.readOnly == nullptr) refuse("opening it for reading alone");
  return memory;
}

}  // namespace troupe::sandbox
