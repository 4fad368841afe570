#pragma once

#include <random>
#include <vector>

#include "tests/fuzz/op.h"

// Operations worth trying, and changes of them that leave each one whole. The same for the same
// state of `random`.
namespace troupe::fuzz {

using Random = std::minstd_rand;

uint32_t below(Random& random, uint32_t bound);

// A whole request as a driver makes it, or nearly.
std::vector<Op> phrase(Random& random);

// One change somewhere.
void mutate(Random& random, std::vector<Op>& ops);

}  // namespace troupe::fuzz
