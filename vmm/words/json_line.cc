#include "vmm/words/json_line.h"

#include <math.h>
#include <stdio.h>

namespace troupe {

kj::String decimalText(double value, int digits) {
  char text[64];
  constexpr double MOST = 1e30;
  if (!isfinite(value) || fabs(value) > MOST) value = 0;
  snprintf(text, sizeof(text), "%.*f", digits, value);
  return kj::heapString(text);
}

JsonLine& JsonLine::decimal(kj::StringPtr name, double value) {
  return raw(name, decimalText(value, 3));
}

JsonLine& JsonLine::raw(kj::StringPtr name, kj::StringPtr value) {
  members.add(kj::str("\"", name, "\":", value));
  return *this;
}

JsonLine& JsonLine::add(const JsonLine& value) {
  members.add(value.render());
  return *this;
}

JsonLine& JsonLine::add(uint64_t value) {
  members.add(kj::str(value));
  return *this;
}

kj::String JsonLine::render() const {
  auto inside = kj::strArray(members, ",");
  return kind == Kind::OBJECT ? kj::str("{", inside, "}") : kj::str("[", inside, "]");
}

kj::String JsonLine::quoted(kj::StringPtr text) {
  kj::Vector<char> out;
  out.add('"');
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20) {
      char code[8];
      snprintf(code, sizeof(code), "\\u%04x", byte);
      out.addAll(kj::StringPtr(code));
      continue;
    }
    if (c == '"' || c == '\\') out.add('\\');
    out.add(c);
  }
  out.add('"');
  return kj::heapString(out.begin(), out.size());
}

}  // namespace troupe
