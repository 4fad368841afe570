#pragma once

#include <string>

#include "sandbox/source_location.h"

namespace troupe::sandbox {

// What the parser of protobuf's text format said of `text` at `line` and `column` (from 0, where it
// was after the word it did not like), as an error of a profile: at that word, and with what may
// stand there.
ProfileError explainParseError(const std::string& path, const std::string& text, int line,
                               int column, const std::string& message);

}  // namespace troupe::sandbox
