#pragma once

#include <cstddef>

namespace troupe {

// One of the files that the profiles of this build were compiled from, by its path in the tree.
struct BuiltInProfile {
  const char* path;
  const char* text;
};

extern const BuiltInProfile BUILT_IN_PROFILES[];
extern const size_t BUILT_IN_PROFILE_COUNT;

}  // namespace troupe
