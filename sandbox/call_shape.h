#pragma once

namespace troupe::sandbox {

// What the arguments of a system call are, one letter each: 'f' an fd, 'n' a number, 'x' an
// address, 'w' words, 'W' words that a rule about the call should name. `words` says for each w and
// W how their constants begin; after '=' it is a single one and no set of bits.
struct CallShape {
  const char* name;
  const char* arguments;
  const char* words[2];
};

// Of a call that is not in the table no more is known than six registers; its name is "".
const CallShape& callShape(const char* name);

// How the constants of the index-th argument begin, which is a w or a W.
const char* wordsOf(const CallShape& shape, unsigned index);

}  // namespace troupe::sandbox
