#pragma once

#include <cstdint>

namespace troupe::virtio::testing {

// What the memory sample (memory_sample.cc) tries when the driver writes a Command into its
// configuration space. The result follows there: what came of it, or -errno.
enum class Attempt : uint64_t {
  LOAD = 1,       // a byte, the proper way; -EFAULT where the device has no memory
  STORE,          // likewise
  MAKE_WRITABLE,  // the page, by mprotect()
  GROW,           // the page's mapping, to all of the file behind it, by mremap()
  SHIFT,          // the page, to the file's beginning, by remap_file_pages()
  MAP_FD,         // a page of the fd whose number `address` is
};

struct Command {
  Attempt what;
  uint64_t address;  // of the guest's, in a page the device has
  uint64_t value;    // to store
};
constexpr uint32_t RESULT_OFFSET = sizeof(Command);

}  // namespace troupe::virtio::testing
