#pragma once

#include <capnp/message.h>
#include <kj/array.h>
#include <kj/common.h>
#include <kj/io.h>
#include <kj/string.h>

#include "sandbox/kernel_layers.h"
#include "sandbox/profile.h"

namespace troupe::sandbox {

// An fd to hand to a child under a name of its profile.
struct HandedFd {
  kj::StringPtr name;
  kj::uint index;
  int fd;  // borrowed
  // How much memory the actor may come to use by writing to it; of files in a tmpfs that is known.
  uint64_t memory = 0;
};

// Whether an actor is the first to play its part, or takes the place of another process, which may
// still play it (protos/setup.capnp).
enum class Part { FIRST, SUCCESSOR };

// The handed fds as the profile numbers them. Throws (TRP-jail-004) when one is missing, unknown,
// given twice, or not open.
struct NumberedFd {
  int fd;
  int number;
};
kj::Array<NumberedFd> numberFds(const Profile& profile, kj::StringPtr name,
                                kj::ArrayPtr<const HandedFd> fds);

// An fd from which the child reads its setup message (protos/setup.capnp) to the end of file.
// `withFilters`: the ready, run and thread filters are in it. `layers`: those the actor itself puts
// on.
kj::AutoCloseFd makeSetup(const Profile& profile, kj::StringPtr name,
                          kj::ArrayPtr<const HandedFd> fds,
                          kj::Maybe<capnp::AnyPointer::Reader> config, bool withFilters,
                          const LayerPlan& layers, Part part = Part::FIRST);

}  // namespace troupe::sandbox
