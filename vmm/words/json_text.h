#pragma once

#include <capnp/compat/json.h>
#include <kj/array.h>
#include <kj/string.h>

namespace troupe {

// The text of a configuration file: a regular file of 1 byte to 1 MiB. Throws a user error that
// names the file.
kj::Array<char> readJsonFile(kj::StringPtr path);

// Reads `json` into `value`. Throws a user error with line and column of the first word that cannot
// stand where it does; `origin` names the text in errors.
void parseJson(const capnp::JsonCodec& codec, kj::ArrayPtr<const char> json, kj::StringPtr origin,
               capnp::JsonValue::Builder value);

}  // namespace troupe
