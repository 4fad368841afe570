#pragma once

#include <kj/common.h>

#include <cstdint>
#include <string>
#include <vector>

// What a peer that somebody took over may write instead of Cap'n Proto RPC.
namespace troupe::testing {

struct Garbage {
  std::string name;  // for the message of a failing test
  std::vector<uint8_t> bytes;
};

// The interface the peer is to serve: calls in the garbage go to it, so that they get as far as its
// own code.
struct Target {
  uint64_t interfaceId;
  uint16_t methodCount;
  // The number of the first question: behind those of an honest conversation before.
  uint32_t firstQuestion = 0;
};

// The same list every time: random bytes; frames that lie about their size; an honest conversation
// cut short and with bits flipped; messages that break the rules of RPC; pointers that are deep,
// wrong, or multiply.
std::vector<Garbage> garbage(Target target);

}  // namespace troupe::testing
