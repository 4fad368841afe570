#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace troupe::sandbox {

// The value of a C constant that profiles may name, such as "MAP_PRIVATE" or "KVM_RUN"; none when
// it is not in the table. A constant is added to the table the day a profile needs it.
std::optional<uint64_t> findConstant(const std::string& name);

// The constant that begins most like `name`, to help with a misspelt one; "" when none does.
std::string nearestConstant(const std::string& name);

}  // namespace troupe::sandbox
