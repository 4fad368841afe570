#pragma once

#include <stdexcept>
#include <string>

namespace troupe::sandbox {

// Where something stands in a profile; line and column count from 1. Line 0: in no file, but built
// into every profile.
struct SourceLocation {
  std::string file;
  int line = 0;
  int column = 0;
};

// "file:line:column".
std::string describe(const SourceLocation& where);

// What is wrong with a profile: "file:line:column: what, and what to do".
class ProfileError final: public std::runtime_error {
 public:
  ProfileError(const SourceLocation& where, const std::string& what);

  SourceLocation where;
  std::string message;
};

}  // namespace troupe::sandbox
