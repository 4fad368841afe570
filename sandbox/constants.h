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

// `value` in words a profile may use: constants that begin with `prefix`, joined by '|', and a
// number for what is left. A prefix that begins with '=' asks for a single constant and may list
// several beginnings, separated by '/'.
std::string constantWords(uint64_t value, const std::string& prefix);

}  // namespace troupe::sandbox
