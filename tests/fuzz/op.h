#pragma once

#include <kj/common.h>

#include <cstdint>
#include <vector>

// What an input of a fuzz target says: a list of operations of 16 bytes each. Every string of bytes
// is one, so libFuzzer's own mutations are harmless; ours (op_mutator.cc) keep operations whole and
// choose values that are worth trying.
namespace troupe::fuzz {

enum class OpKind : uint8_t {
  FEATURES,    // what the driver takes of the features offered, from its next start on
  QUEUE,       // where and how large queue `a` is, from the next start on
  BUFFER,      // one more buffer of the chain that is being built
  REQUEST,     // a whole request of the device's own, with a field or two spoiled
  PUBLISH,     // makes the chain available in queue `a`, in a table of its own or not
  POKE,        // the guest writes a word wherever it likes
  KICK,        // the device serves queue `a`
  INTERLEAVE,  // the guest writes a word while the device is at one of its next reads
  EVENT,       // something happens on the device's host side
  CONFIG,      // the driver writes the configuration space, or the host has news for the device
  RESET,       // the driver resets the device; it starts anew with the next operation
  FLIP,        // from now on a second read within a request sees other bytes
};
constexpr uint8_t OP_KINDS = 12;

struct Op {
  uint8_t kind;  // modulo OP_KINDS
  uint8_t a;
  uint16_t b;
  uint32_t c;
  uint64_t d;

  OpKind what() const { return OpKind(kind % OP_KINDS); }
};
static_assert(sizeof(Op) == 16, "an input is made of them");

constexpr size_t MAX_OPS = 64;  // of one input; what follows is ignored

// The operations of `input`; one that is cut short ends with zeroes.
std::vector<Op> decode(kj::ArrayPtr<const kj::byte> input);

// How `a` of BUFFER and `c` of QUEUE, POKE and INTERLEAVE choose an address.
enum class Where : uint8_t {
  DATA,      // room of its own
  SMALL,     // a few bytes beside others
  END,       // up to the last byte of a region
  STRADDLE,  // past the end of a region
  HOLE,      // where there is no memory
  RING,      // in a ring
  TABLE,     // in an indirect table
  RAW,       // as it says
};
constexpr uint8_t WHERES = 8;

}  // namespace troupe::fuzz
