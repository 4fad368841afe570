#include "sandbox/tool/tool_error.h"

#include <cstdio>

namespace troupe::sandbox {

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (unsigned char c : text.substr(0, 200)) {
    char escape[8];
    snprintf(escape, sizeof(escape), c < 0x20 || c >= 0x7f ? "\\x%02x" : "%c", c);
    result += escape;
  }
  return result + (text.size() > 200 ? "..." : "") + "\"";
}

}  // namespace troupe::sandbox
