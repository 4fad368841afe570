#include "sandbox/words.h"

#include <cctype>
#include <stdexcept>

#include "sandbox/constants.h"

namespace troupe::sandbox {
namespace {

uint64_t single(const std::string& text) {
  if (!text.empty() && std::isdigit(static_cast<unsigned char>(text[0]))) {
    bool hex = text.size() > 2 && text.compare(0, 2, "0x") == 0;
    size_t used = 0;
    try {
      uint64_t value = std::stoull(text, &used, hex ? 16 : 10);
      if (used == text.size()) return value;
    } catch (const std::logic_error&) {
      // Said below.
    }
    throw std::invalid_argument("\"" + text + "\" is not a decimal or 0x number of 64 bits");
  }
  if (auto value = findConstant(text)) return *value;
  std::string nearest = nearestConstant(text);
  throw std::invalid_argument("there is no constant \"" + text + "\" among those that profiles may name" +
                              (nearest.empty() ? "" : "; the nearest is " + nearest));
}

}  // namespace

uint64_t wordValue(const std::string& text) {
  uint64_t result = 0;
  size_t begin = 0;
  for (;;) {
    size_t end = text.find('|', begin);
    std::string part = text.substr(begin, end == std::string::npos ? end : end - begin);
    part.erase(0, part.find_first_not_of(' '));
    part.erase(part.find_last_not_of(' ') + 1);
    result |= single(part);
    if (end == std::string::npos) return result;
    begin = end + 1;
  }
}

}  // namespace troupe::sandbox
