#pragma once

#include <string>
#include <vector>

#include "sandbox/policy_layers.h"

namespace troupe::sandbox {

// One layer of a jail as it is shown: "landlock", "TCP", "since 6.7", and where that is written.
struct LayerRow {
  std::string layer;
  std::string value;
  std::string need;  // "required", "since 6.7", "optional", "off"; "-" where there is no question
  SourceLocation where;
};

// All of them, in the order in which sandbox/common/jail.profile has them.
std::vector<LayerRow> layerRows(const PolicyLayers& layers);

// The same with namespaces, and what landlock denies, in one row where one line asks for them.
std::vector<LayerRow> joinedRows(const std::vector<LayerRow>& rows);

}  // namespace troupe::sandbox
