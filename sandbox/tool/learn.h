#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sandbox/profile_source.h"
#include "sandbox/watch/call_record.h"

namespace troupe::sandbox {

struct Learned {
  std::string text;                  // the profile, which is sound
  size_t rules = 0;                  // added
  std::vector<std::string> refused;  // "run called openat, which …": no rule can allow it
};

// What to say of where a call was made; "" when nothing is known.
using CallSiteOf = std::function<std::string(const CallRecord&)>;

// The profile at `path` with rules for those of `records`, all of its actor, that it does not
// allow. Arguments are pinned where it is safe: fds by name, words and flags by value, sizes of
// what has a small greatest size. Rules of the file itself that the new ones make idle are gone.
// Throws ProfileError.
Learned learn(const ProfileFiles& files, const std::string& path,
              const std::vector<CallRecord>& records, const CallSiteOf& siteOf);

}  // namespace troupe::sandbox
