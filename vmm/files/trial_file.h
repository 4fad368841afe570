#pragma once

#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe {

// A file that was made for a VM whose start may still fail. Then it goes again, since it would be
// in the way of the next try; once the VM runs it is kept.
class TrialFile {
 public:
  // `fd`: what was made at `path`, open.
  TrialFile(kj::StringPtr path, int fd);
  ~TrialFile() noexcept(false);
  KJ_DISALLOW_COPY(TrialFile);

  void keep() { kept = true; }

 private:
  kj::String path;
  uint64_t device = 0;
  uint64_t inode = 0;
  bool kept = false;
};

}  // namespace troupe
