#pragma once

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include <cstdint>

#include "sandbox/profile.h"

namespace troupe::sandbox {

// What a kernel offers of those layers that not every kernel has.
struct KernelLayers {
  uint32_t version;  // kernelVersion()
  bool namespaces[NAMESPACE_COUNT];
  int landlockAbi;    // 0: none
  int landlockError;  // then the errno that said so
  bool mdwe;
  bool executableSeals;
};

// Of the kernel this process runs on, asked of itself and not of its version.
KernelLayers viewKernel();

// What of a profile's layers one jail gets on one kernel.
struct LayerPlan {
  uint64_t namespaces = 0;  // CLONE_NEW…
  bool landlock[LANDLOCK_ACCESS_COUNT] = {};
  bool mdwe = false;
  bool executableSeals = false;
  kj::Array<kj::String> missing;  // what the profile lets be missing: "landlock: TCP (Linux 6.7)"
};

// Throws, saying so of `name`, when the kernel is older than the profile allows (TRP-jail-010) or
// lacks a layer that the profile requires (TRP-jail-011).
LayerPlan planLayers(const Profile& profile, kj::StringPtr name, const KernelLayers& kernel);

}  // namespace troupe::sandbox
