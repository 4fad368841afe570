#pragma once

#include <kj/array.h>

namespace troupe {

// JSON text with every \uXXXX of its strings replaced by the character itself, so that it means the
// same: Cap'n Proto 0.9 reads the hexadecimal digits a to f wrongly. Escapes that JSON could not do
// without (", \, NUL) stay escapes. None if an escape is malformed or half of a surrogate pair.
kj::Maybe<kj::Array<char>> withoutUnicodeEscapes(kj::ArrayPtr<const char> json);

}  // namespace troupe
