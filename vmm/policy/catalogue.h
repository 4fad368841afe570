#pragma once

#include <string>
#include <vector>

#include "sandbox/profile_source.h"
#include "sandbox/tool/policy_tool.h"

namespace troupe {

// The profiles this build was made from, with what they include.
class BuiltInFiles final: public sandbox::ProfileFiles {
 public:
  std::optional<std::string> read(const std::string& path) const override;
};

// Every profile built in that is not only for including: "devices/blk/blk.profile" of the actor
// "blk".
std::vector<sandbox::CataloguedActor> builtInActors();

// Those of them that --profile-dir can replace: all that play in a VM.
std::vector<sandbox::CataloguedActor> replaceableActors();

}  // namespace troupe
