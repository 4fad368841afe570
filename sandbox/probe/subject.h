#pragma once

#include "sandbox/profile.h"

namespace troupe::sandbox::probe {

// The profile a probe test is about; probe.bzl generates the definition.
struct Subject {
  const Profile& profile;
  const char* text;   // the profile's file, from the root of the tree
  const char* reach;  // the checked-in table of what the jail lets through
};
extern const Subject SUBJECT;

}  // namespace troupe::sandbox::probe
