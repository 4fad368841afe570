#pragma once

#include <string>
#include <vector>

#include "sandbox/profile_source.h"

namespace troupe::sandbox {

// The profile of an actor by its path among the files.
struct CataloguedActor {
  std::string name;
  std::string path;
};

struct PolicyCatalogue {
  const ProfileFiles& files;
  std::vector<CataloguedActor> actors;
};

struct ToolResult {
  int exit;  // 0: done; 2: the command line or a file named there is wrong
  std::string out;
  std::string err;
};

// `troupe policy` with `words` after it. `catalogue`: the actors it knows by name.
ToolResult policyTool(const PolicyCatalogue& catalogue, const std::vector<std::string>& words);

}  // namespace troupe::sandbox
