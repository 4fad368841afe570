#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe::broker {

// A kernel or initrd file, of which nothing is believed. Every read is checked against the size the
// file had when this object was made; a file that shrinks later is one that was cut short.
class BootFile {
 public:
  // `fd` is borrowed; `what` names the file in messages: "kernel", "initrd". Throws TRP-boot-001
  // unless it is a regular file, TRP-boot-002 when it is empty.
  BootFile(int fd, kj::StringPtr what);

  uint64_t size() const { return bytes; }
  kj::StringPtr what() const { return name; }

  // Fills `target` from `offset` on. Throws TRP-boot-003 when the file ends before, TRP-boot-012
  // when it cannot be read.
  void read(uint64_t offset, kj::ArrayPtr<kj::byte> target) const;

  template <typename T>
  T readAs(uint64_t offset) const {
    T value;
    read(offset, kj::arrayPtr(reinterpret_cast<kj::byte*>(&value), sizeof(value)));
    return value;
  }

 private:
  int fd;
  kj::StringPtr name;
  uint64_t bytes;
};

}  // namespace troupe::broker
