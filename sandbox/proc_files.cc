#include "sandbox/proc_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <kj/vector.h>
#include <string.h>
#include <unistd.h>

namespace troupe::sandbox {
namespace {

// A process that has more threads or fds than this is not one of ours, and is not read to the end.
constexpr size_t MAX_ENTRIES = 4096;

}  // namespace

kj::Maybe<kj::AutoCloseFd> openAt(int folder, const char* path, int flags) {
  int fd = openat(folder, path, flags | O_CLOEXEC);
  if (fd < 0) return nullptr;
  return kj::AutoCloseFd(fd);
}

kj::Maybe<kj::String> readAll(int folder, const char* path) {
  KJ_IF_MAYBE (file, openAt(folder, path, O_RDONLY)) {
    // Larger than any file of /proc that is read here; what is beyond is not looked at.
    char buffer[16384];
    size_t size = 0;
    while (size < sizeof(buffer)) {
      ssize_t n = read(*file, buffer + size, sizeof(buffer) - size);
      if (n < 0) return nullptr;
      if (n == 0) break;
      size += n;
    }
    return kj::heapString(buffer, size);
  }
  return nullptr;
}

kj::Maybe<kj::String> readLink(int folder, const char* path) {
  char buffer[512];
  ssize_t n = readlinkat(folder, path, buffer, sizeof(buffer));
  if (n < 0) return nullptr;
  return kj::heapString(buffer, n);
}

kj::Maybe<kj::Array<kj::String>> listFolder(int folder, const char* path) {
  KJ_IF_MAYBE (dir, openAt(folder, path, O_RDONLY | O_DIRECTORY)) {
    kj::Vector<kj::String> names;
    alignas(dirent64) char buffer[8192];
    for (;;) {
      ssize_t n = getdents64(*dir, buffer, sizeof(buffer));
      if (n < 0) return nullptr;
      for (ssize_t at = 0; at < n;) {
        auto entry = reinterpret_cast<const dirent64*>(buffer + at);
        at += entry->d_reclen;
        kj::StringPtr name = entry->d_name;
        if (name != "." && name != "..") names.add(kj::heapString(name));
      }
      if (n == 0 || names.size() >= MAX_ENTRIES) return names.releaseAsArray();
    }
  }
  return nullptr;
}

kj::String statusField(kj::StringPtr status, kj::StringPtr key) {
  auto wanted = kj::str("\n", key, ":");
  const char* found = strstr(status.cStr(), wanted.cStr());
  if (found == nullptr) return nullptr;
  const char* begin = found + wanted.size();
  while (*begin == '\t' || *begin == ' ')
    begin++;
  const char* end = strchrnul(begin, '\n');
  while (end > begin && end[-1] == ' ')
    end--;
  return kj::heapString(begin, end - begin);
}

}  // namespace troupe::sandbox
