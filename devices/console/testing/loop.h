#pragma once

#include <kj/async-io.h>
#include <kj/function.h>
#include <kj/io.h>

#include <string>

#include "devices/console/output_log.h"

namespace troupe::console::testing {

// An event loop and short ways to talk of bytes and fds in a test.
struct Loop {
  Loop();

  kj::AsyncIoContext io;
  kj::UnixEventPort& events;
  kj::Timer& timer;

  // Turns the loop until `done`; false when that took more than 20 seconds.
  bool until(kj::Function<bool()> done);

  // Turns the loop for a while, to see that nothing more happens.
  void turn(kj::Duration duration = 20 * kj::MILLISECONDS);

  static kj::AutoCloseFd eventFd();

  // Reads what is there within 20 seconds, `count` bytes of it, while the loop turns.
  std::string readAll(int fd, size_t count);
};

struct Pair {
  kj::AutoCloseFd ours;
  kj::AutoCloseFd theirs;
};
Pair socketPair();  // both ends block
Pair pipePair();    // ours: to write, theirs: to read
kj::AutoCloseFd memoryFile(const std::string& content = "");
std::string content(int fd);  // of a file

kj::ArrayPtr<const kj::byte> bytes(const std::string& text);

// `size` bytes, different for each seed.
std::string noise(size_t size, uint32_t seed = 1);

// A reader that takes everything there is now.
std::string takeAll(OutputLog::Reader& reader);

// Writes as a careful writer does, or as the guest's 16550 may.
kj::Promise<void> writeCarefully(OutputLog& log, const std::string& text, size_t from = 0);

// Resident bytes of this process.
size_t residentBytes();

}  // namespace troupe::console::testing
