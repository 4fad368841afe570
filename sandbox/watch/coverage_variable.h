#pragma once

namespace troupe::sandbox {

// Environment variable that names a folder: filters then stop at what they allow, so that it can be
// counted there, and refuse what they refuse.
constexpr char COVERAGE_VARIABLE[] = "TROUPE_COVERAGE";

}  // namespace troupe::sandbox
