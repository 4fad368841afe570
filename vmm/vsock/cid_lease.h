#pragma once

#include <kj/common.h>
#include <kj/io.h>
#include <kj/string.h>

#include <cstdint>

namespace troupe {

// A cid that no other VM of this user has while this object lives. It is a locked file "cid-N" in
// the run-time folder: what a killed VM leaves there is known by its lock, and taken over.
//
// Cids of other users' VMs, and of QEMU's, mean other sockets: they are in nobody's way.
class CidLease {
 public:
  // Throws a user error if a living VM has it. Without `wanted`: the lowest that is free.
  explicit CidLease(kj::Maybe<uint64_t> wanted);
  ~CidLease() noexcept(false);
  KJ_DISALLOW_COPY(CidLease);

  uint64_t cid() const { return number; }

 private:
  bool take(uint64_t cid);

  kj::String folder;
  kj::AutoCloseFd lock;
  uint64_t number = 0;
};

}  // namespace troupe
