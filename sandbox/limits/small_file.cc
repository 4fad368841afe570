#include "sandbox/limits/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/io.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace troupe::sandbox {
namespace {

constexpr kj::StringPtr BLANKS = " \t\n"_kj;

}  // namespace

kj::Maybe<kj::String> readSmallFile(kj::StringPtr path) {
  int fd = open(path.cStr(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  kj::AutoCloseFd file(fd);
  char text[16384];
  size_t size = 0;
  while (size < sizeof(text)) {
    ssize_t n = read(file, text + size, sizeof(text) - size);
    if (n < 0) return nullptr;
    if (n == 0) break;
    size += n;
  }
  return kj::heapString(text, size);
}

int writeSmallFile(kj::StringPtr path, kj::StringPtr text) {
  int fd = open(path.cStr(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  kj::AutoCloseFd file(fd);
  return write(file, text.begin(), text.size()) < 0 ? errno : 0;
}

bool hasWord(kj::StringPtr text, kj::StringPtr word) {
  const char* at = text.cStr();
  while (*at != 0) {
    at += strspn(at, BLANKS.cStr());
    size_t length = strcspn(at, BLANKS.cStr());
    if (length > 0 && kj::StringPtr(word).size() == length &&
        memcmp(at, word.begin(), length) == 0) {
      return true;
    }
    at += length;
  }
  return false;
}

uint64_t numberAfter(kj::StringPtr text, kj::StringPtr key) {
  for (const char* line = text.cStr(); *line != 0;) {
    const char* end = strchrnul(line, '\n');
    if (size_t(end - line) > key.size() && memcmp(line, key.begin(), key.size()) == 0 &&
        line[key.size()] == ' ') {
      return strtoull(line + key.size() + 1, nullptr, 10);
    }
    line = *end == 0 ? end : end + 1;
  }
  return 0;
}

}  // namespace troupe::sandbox
