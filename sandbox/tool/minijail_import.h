#pragma once

#include <string>

namespace troupe::sandbox {

struct ImportResult {
  std::string profile;
  size_t rules;
  size_t leftOut;  // lines that are comments in `profile` because the language refuses them
};

// A minijail .policy file as a profile of ours. Nothing becomes wider: what cannot be said exactly
// is left out and stands there as a comment with the reason. Calls that are never allowed once an
// actor serves go into `start`, all others into `run`. `path`: for the reasons.
ImportResult importMinijail(const std::string& text, const std::string& path);

}  // namespace troupe::sandbox
