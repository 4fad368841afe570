#include "devices/console/testing/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>

namespace troupe::console::testing {

Loop::Loop() : io(kj::setupAsyncIo()), events(io.unixEventPort), timer(io.provider->getTimer()) {}

bool Loop::until(kj::Function<bool()> done) {
  auto end = timer.now() + 20 * kj::SECONDS;
  while (!done()) {
    if (timer.now() > end) return false;
    timer.afterDelay(200 * kj::MICROSECONDS).wait(io.waitScope);
  }
  return true;
}

void Loop::turn(kj::Duration duration) {
  timer.afterDelay(duration).wait(io.waitScope);
}

kj::AutoCloseFd Loop::eventFd() {
  int fd;
  KJ_SYSCALL(fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  return kj::AutoCloseFd(fd);
}

std::string Loop::readAll(int fd, size_t count) {
  std::string all;
  until([&]() {
    pollfd ready = {fd, POLLIN, 0};
    while (all.size() < count && poll(&ready, 1, 0) == 1) {
      char piece[65536];
      ssize_t got = read(fd, piece, std::min(sizeof(piece), count - all.size()));
      if (got <= 0) return true;
      all.append(piece, got);
    }
    return all.size() == count;
  });
  return all;
}

Pair socketPair() {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

Pair pipePair() {
  int fds[2];
  KJ_SYSCALL(pipe2(fds, O_CLOEXEC));
  return {kj::AutoCloseFd(fds[1]), kj::AutoCloseFd(fds[0])};
}

kj::AutoCloseFd memoryFile(const std::string& content) {
  int fd;
  KJ_SYSCALL(fd = memfd_create("console-test", MFD_CLOEXEC));
  kj::AutoCloseFd file(fd);
  KJ_REQUIRE(pwrite(fd, content.data(), content.size(), 0) == content.size());
  return file;
}

std::string content(int fd) {
  std::string all;
  char piece[65536];
  for (;;) {
    ssize_t got = pread(fd, piece, sizeof(piece), all.size());
    KJ_REQUIRE(got >= 0);
    if (got == 0) return all;
    all.append(piece, got);
  }
}

kj::ArrayPtr<const kj::byte> bytes(const std::string& text) {
  return kj::arrayPtr(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

std::string noise(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string text(size, 0);
  for (char& c : text)
    c = static_cast<char>(random());
  return text;
}

std::string takeAll(OutputLog::Reader& reader) {
  std::string all;
  for (;;) {
    auto piece = reader.next();
    if (piece.size() == 0) return all;
    all.append(reinterpret_cast<const char*>(piece.begin()), piece.size());
    reader.took(piece.size());
  }
}

kj::Promise<void> writeCarefully(OutputLog& log, const std::string& text, size_t from) {
  constexpr size_t PIECE = 10000;
  if (from >= text.size()) return kj::READY_NOW;
  return log.whenClear().then([&log, &text, from]() {
    log.write(bytes(text).slice(from, std::min(text.size(), from + PIECE)));
    return writeCarefully(log, text, from + PIECE);
  });
}

size_t residentBytes() {
  unsigned long total = 0, resident = 0;
  FILE* file = fopen("/proc/self/statm", "r");
  KJ_REQUIRE(file != nullptr && fscanf(file, "%lu %lu", &total, &resident) == 2);
  fclose(file);
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace troupe::console::testing
