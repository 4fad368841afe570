#pragma once

#include <kj/string.h>

#include "protos/config.capnp.h"

namespace troupe {

// Fills `config` from the JSON file at `path`. Throws a user error that names the file and the key
// for whatever is not as the schema says: unknown keys and wrong types are never ignored.
void readConfigFile(kj::StringPtr path, VmConfig::Builder config);

// The same for JSON text; `origin` names it in errors.
void parseConfig(kj::ArrayPtr<const char> json, kj::StringPtr origin, VmConfig::Builder config);

// `config` as a file readConfigFile() reads back.
kj::String printConfig(VmConfig::Reader config);

}  // namespace troupe
