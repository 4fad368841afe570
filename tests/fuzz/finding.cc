#include "tests/fuzz/finding.h"

#include <cstdio>
#include <cstdlib>

namespace troupe::fuzz {

void finding(kj::StringPtr what) {
  fprintf(stderr, "FINDING: %s\n", what.cStr());
  abort();
}

}  // namespace troupe::fuzz
