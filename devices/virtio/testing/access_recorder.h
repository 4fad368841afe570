#pragma once

#include <kj/array.h>
#include <kj/vector.h>

#include <cstdint>

namespace troupe::virtio::testing {

// Records every access this thread's machine code makes to some pages, in order.
//
// The pages are closed; each access faults, is noted, and is let through for one instruction. So
// the record holds what the processor did, not what the source says. One recorder at a time; system
// calls on the pages fail with EFAULT.
class AccessRecorder {
 public:
  struct Access {
    uint64_t offset;  // of its first byte, from the start of the pages
    bool isWrite;
  };

  explicit AccessRecorder(kj::ArrayPtr<kj::byte> pages);
  ~AccessRecorder() noexcept(false);
  KJ_DISALLOW_COPY(AccessRecorder);

  // Opens the pages and returns what was recorded.
  kj::Array<Access> finish();
};

}  // namespace troupe::virtio::testing
