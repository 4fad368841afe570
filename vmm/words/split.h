#pragma once

#include <kj/string.h>
#include <kj/vector.h>

namespace troupe {

// The parts of `text` between commas, one at least. A comma that is written twice belongs to its
// part if `doubledIsLiteral`.
kj::Vector<kj::String> splitAtCommas(kj::StringPtr text, bool doubledIsLiteral);

}  // namespace troupe
