#pragma once

#include <kj/array.h>
#include <kj/string.h>

#include "vmm/words/error_codes.h"

namespace troupe {

// A part that an option made of parts may have: `nospoof`, or `mac=…` with a value.
struct OptionPart {
  kj::StringPtr name;
  bool hasValue;
  bool repeats = false;
};

// One as it was written.
struct SaidPart {
  kj::StringPtr name;  // of the OptionPart
  kj::String value;
};

// An option and its parts, as errors name them.
struct OptionForm {
  kj::StringPtr name;  // "--net"
  const codes::ErrorCode& code;
  kj::ArrayPtr<const OptionPart> parts;
  kj::StringPtr rule;  // "its parts are tap=NAME, …"
};

// "tap=t0,mac=52:54:…" taken apart; a comma in a value is written twice. Throws a user error for a
// part that is unknown, given twice, or with a value where it has none, and the reverse.
kj::Array<SaidPart> readParts(const OptionForm& form, kj::StringPtr text);

}  // namespace troupe
