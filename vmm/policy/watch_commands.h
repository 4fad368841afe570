#pragma once

#include <string>
#include <vector>

#include "sandbox/tool/policy_tool.h"

namespace troupe {

// `troupe policy learn` and `troupe policy coverage`, with the words after these. They run a
// command. `troupe`: the path of the `troupe` of this build.
sandbox::ToolResult learnCommand(const sandbox::PolicyCatalogue& catalogue,
                                 const std::string& troupe, std::vector<std::string> words);
sandbox::ToolResult coverageCommand(const sandbox::PolicyCatalogue& catalogue,
                                    std::vector<std::string> words);

}  // namespace troupe
