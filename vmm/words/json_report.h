#pragma once

#include <capnp/compat/json.h>
#include <capnp/dynamic.h>
#include <kj/string.h>

namespace troupe {

// What a command found out, as JSON for programs. Numbers stand as numbers, also those of 64 bits,
// which Cap'n Proto alone writes as texts; beyond 2^53, where many readers lose digits, they stay
// so.
void encodeReport(capnp::DynamicStruct::Reader report, capnp::JsonValue::Builder value);

// The same as text of several lines, without an end of line.
kj::String reportJson(capnp::DynamicStruct::Reader report);

}  // namespace troupe
