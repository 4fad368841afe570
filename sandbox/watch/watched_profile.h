#pragma once

#include <kj/array.h>
#include <kj/vector.h>

#include "sandbox/profile.h"

namespace troupe::sandbox {

// What becomes known of the system calls of actors, beyond what a filter answers.
enum class WatchMode {
  COUNT,           // the filters as they are; each call they allow is counted
  REPORT_REFUSED,  // what a filter refuses is reported instead, and made
  REPORT_ALL,      // every call is reported, and made
};

// `profile` with filters that stop for the tracer (SECCOMP_RET_TRACE), the number of the filter in
// profile().filters, from 1, with each stop. The newest filter of a thread that stops decides which
// number that is. Calls by another convention kill the process in every mode.
class WatchedProfile {
 public:
  // `original` must outlive this object.
  WatchedProfile(const Profile& original, WatchMode mode);
  KJ_DISALLOW_COPY(WatchedProfile);

  const Profile& profile() const { return watched; }
  const Profile& unwatched() const { return original; }

 private:
  void add(const char* stage, kj::Array<sock_filter> program);

  const Profile& original;
  Profile watched;
  kj::Vector<ProfileFilter> filters;
  kj::Vector<kj::Array<sock_filter>> programs;
};

}  // namespace troupe::sandbox
