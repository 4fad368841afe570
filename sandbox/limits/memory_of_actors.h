#pragma once

#include <kj/common.h>
#include <kj/string.h>
#include <kj/vector.h>

#include <cstdint>

namespace troupe::sandbox {

// How much memory the actors of one VM may have together. Of an actor there can be several
// processes at once: one that serves and one that waits to take its place. Each counts, and what
// they may have is not taken away again: the next one comes.
class MemoryOfActors {
 public:
  // A process of `actor` begins that may have `bytes`; not `limited`: any amount.
  void begin(kj::StringPtr actor, uint64_t bytes, bool limited);
  void end(kj::StringPtr actor);

  // None: there is no limit.
  kj::Maybe<uint64_t> total() const;

 private:
  struct OfOne {
    kj::String actor;
    uint64_t bytes;   // of a process
    uint32_t living;  // processes
    uint32_t most;    // of them at once
  };
  kj::Vector<OfOne> all;
  bool unlimited = false;
};

}  // namespace troupe::sandbox
