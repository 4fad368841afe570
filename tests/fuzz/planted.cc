#include "tests/fuzz/planted.h"

#ifdef TROUPE_FUZZ

#include <kj/debug.h>

#include <cstdlib>
#include <cstring>

namespace troupe::fuzz {
namespace {

constexpr const char* NAMES[] = {
    "double-fetch",   "indirect-length",  "used-ring-overrun", "descriptor-loop",
    "answered-twice", "sector-overflow",  "read-only",         "mapping-out-of-file",
    "used-length",    "error-ignored",    "short-transfer",    "volatile-copy",
    "status-order",   "page-outside-ram", "statistics-length", "checksum-place",
    "spoofed-source", "received-length",  "layer-count",       "fd-taken",
    "config-bounds",  "credit-overrun",   "early-data",        "unknown-port",
    "page-forgotten", "credit-forgotten", "kernel-past-ram",   "initrd-on-kernel",
    "item-length",    "long-name",        "any-method",        "event-length",
    "ram-upon-ram",   "any-call",         "calls-unbounded",   "kept-length",
};

int chosen() {
  const char* name = getenv("TROUPE_PLANTED");
  if (name == nullptr) return -1;
  for (int i = 0; i < int(sizeof(NAMES) / sizeof(NAMES[0])); i++)
    if (strcmp(name, NAMES[i]) == 0) return i;
  KJ_FAIL_REQUIRE("TROUPE_PLANTED names no bug of tests/fuzz/planted.h", name);
}

}  // namespace

bool isPlanted(Bug bug) {
  static const int it = chosen();
  return it == int(bug);
}

}  // namespace troupe::fuzz

#endif
