// A client that keeps to no rule, for realm_hostile_test.py.
//
// usage: hostile_client SOCKET BUNDLE CASE [NUMBER]
//
// Says "done" when it is through, and then keeps what it has until its standard input ends.
#include <kj/debug.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/vm/realm_hostile/cases.h"

int main(int argc, char* argv[]) {
  using namespace troupe::hostile;
  if (argc < 4) return 2;
  setlinebuf(stdout);
  for (auto& one : allCases()) {
    if (one.name != argv[3]) continue;
    KJ_IF_MAYBE (failure, kj::runCatchingExceptions([&]() {
                   one.run(argv[1], argv[2], argc > 4 ? uint32_t(atoi(argv[4])) : 1);
                 })) {
      printf("failed: %s\n", kj::str(*failure).cStr());
      return 1;
    }
    return 0;
  }
  return 2;
}
