#pragma once

#include <kj/string.h>

namespace troupe::fuzz {

// A rule is broken: says which and ends the process, upon which libFuzzer keeps the input.
[[noreturn]] void finding(kj::StringPtr what);

}  // namespace troupe::fuzz
