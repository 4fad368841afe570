#pragma once

#include <kj/common.h>
#include <kj/string.h>
#include <kj/vector.h>

#include <cstdint>

namespace troupe {

// An object or a list of JSON on one line, written member by member. Numbers stand as numbers, also
// those beyond 2^53, which the JSON of Cap'n Proto writes as text.
class JsonLine {
 public:
  enum class Kind { OBJECT, LIST };
  explicit JsonLine(Kind kind = Kind::OBJECT) : kind(kind) {}

  // Members of an object.
  JsonLine& text(kj::StringPtr name, kj::StringPtr value) { return raw(name, quoted(value)); }
  JsonLine& number(kj::StringPtr name, uint64_t value) { return raw(name, kj::str(value)); }
  JsonLine& number(kj::StringPtr name, int value) { return raw(name, kj::str(value)); }
  // With three digits behind the point.
  JsonLine& decimal(kj::StringPtr name, double value);
  JsonLine& truth(kj::StringPtr name, bool value) { return raw(name, value ? "true" : "false"); }
  JsonLine& json(kj::StringPtr name, const JsonLine& value) { return raw(name, value.render()); }
  JsonLine& null(kj::StringPtr name) { return raw(name, "null"); }

  // Elements of a list.
  JsonLine& add(const JsonLine& value);
  JsonLine& add(uint64_t value);

  kj::String render() const;

 private:
  static kj::String quoted(kj::StringPtr text);
  JsonLine& raw(kj::StringPtr name, kj::StringPtr value);

  Kind kind;
  kj::Vector<kj::String> members;
};

// `value` with so many digits behind the point; 0 for what is no finite number.
kj::String decimalText(double value, int digits);

}  // namespace troupe
