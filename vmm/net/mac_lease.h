#pragma once

#include <kj/io.h>
#include <kj/string.h>

namespace troupe {

// A MAC address that no other guest of this user has on one link while this object lives: a locked
// file in the run-time folder, as that of a CidLease.
class MacLease {
 public:
  // `link`: the name of a bridge. Throws TRP-rlm-012 if a living guest has the address there.
  MacLease(kj::StringPtr link, kj::StringPtr mac);
  ~MacLease() noexcept(false);
  KJ_DISALLOW_COPY(MacLease);

 private:
  kj::String path;
  kj::AutoCloseFd lock;
};

}  // namespace troupe
