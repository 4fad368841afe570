#pragma once

#include <map>
#include <string>
#include <vector>

#include "sandbox/filter_program.h"
#include "sandbox/policy.h"
#include "sandbox/profile_source.h"
#include "sandbox/tool/policy_tool.h"

namespace troupe {

// The profiles of a folder that replace profiles built in.
struct Override {
  struct Compiled {
    std::string path;  // of the profile it replaces
    sandbox::Policy policy;
    std::vector<std::vector<sock_filter>> programs;  // of policy.filters
  };
  std::vector<Compiled> profiles;
  std::vector<std::string> errors;  // "FOLDER/file:line:column: what"; with any, nothing is good
};

// Compiles `files` (their texts by their paths below `folder`) over `builtIn`. A profile replaces
// that of the same path; every other file must be included by one that does. What they include is
// looked for among `files` first. Each must have the fds of the profile it replaces: the actor's
// code knows them.
Override compileOverride(const std::string& folder, const std::map<std::string, std::string>& files,
                         const sandbox::ProfileFiles& builtIn,
                         const std::vector<sandbox::CataloguedActor>& actors);

}  // namespace troupe
