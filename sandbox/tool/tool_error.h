#pragma once

#include <stdexcept>
#include <string>

namespace troupe::sandbox {

// What is wrong with a command line or with a file named there, with a stable code in front.
class ToolError final: public std::runtime_error {
 public:
  ToolError(const std::string& code, const std::string& text)
      : std::runtime_error(code + ": " + text) {}
};

// What a terminal may be shown of somebody else's text, in quotes.
std::string quoted(const std::string& text);

}  // namespace troupe::sandbox
