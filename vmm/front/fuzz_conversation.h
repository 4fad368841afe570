#pragma once

#include <capnp/rpc.capnp.h>
#include <kj/array.h>
#include <kj/function.h>

#include "sandbox/fuzz_message.h"
#include "tests/fuzz/op.h"

// What a hostile client says to a front end: messages of Cap'n Proto's RPC, mostly calls, in any
// order, with fields out of range and bytes spoiled.
namespace troupe::front {

// Fills interface, method and parameters of a call as `op` chooses. The target may be wrong for it.
using FillCall = kj::Function<void(capnp::rpc::Call::Builder call, const fuzz::Op& op,
                                   const sandbox::fuzzing::Operations& ops)>;

// One of the texts that stand in parameters: operations of this kind choose it.
constexpr uint8_t TEXT_KIND = 12;

// All that `input` says, message behind message.
kj::Array<kj::byte> conversation(kj::ArrayPtr<const kj::byte> input, FillCall fillCall);

// Whether the client of `input` reads what it is answered.
inline bool listens(kj::ArrayPtr<const kj::byte> input) {
  return input.size() == 0 || (input[0] & 0x80) == 0;
}

}  // namespace troupe::front
