#pragma once

#include <cstdint>
#include <string>

namespace troupe::sandbox {

// The value of a word of the profile language: a decimal or 0x number, a constant's name, or
// several of them joined by '|'. Throws std::invalid_argument that says what is wrong.
uint64_t wordValue(const std::string& text);

}  // namespace troupe::sandbox
