// For tests of what becomes of a thread in an endless loop: with these in place of the C library's,
// one that reads "hang here", or writes what the payload's guest says on a console, never comes
// back.

#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstddef>
#include <string_view>

namespace {

constexpr std::string_view READ = "hang here";
constexpr std::string_view WRITTEN = "hello from the virtio console";

void moved(const void* bytes, ssize_t size, std::string_view deadly) {
  if (size <= 0) return;
  std::string_view text(static_cast<const char*>(bytes), size);
  volatile bool isEndless = text.find(deadly) != text.npos;
  while (isEndless) {
  }
}

}  // namespace

extern "C" {

ssize_t __real_read(int fd, void* bytes, size_t size);
ssize_t __real_write(int fd, const void* bytes, size_t size);
long __real_syscall(long number, ...);

ssize_t __wrap_read(int fd, void* bytes, size_t size) {
  ssize_t done = __real_read(fd, bytes, size);
  moved(bytes, done, READ);
  return done;
}

ssize_t __wrap_write(int fd, const void* bytes, size_t size) {
  moved(bytes, size, WRITTEN);
  return __real_write(fd, bytes, size);
}

long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
  long done = __real_syscall(number, a, b, c, d, e, f);
  if (number == SYS_preadv2 && done > 0) {
    auto& first = *reinterpret_cast<const iovec*>(b);
    moved(first.iov_base, first.iov_len, READ);
  }
  return done;
}

}  // extern "C"
