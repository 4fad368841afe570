// The other two conventions of the same kernel.

#include "sandbox/probe/scenarios/list.h"

namespace troupe::sandbox::probe {

// Calls by the other two conventions of the same kernel.
void addConventions(List& list) {
  list.add("another convention", "i386", [](const Targets&) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
    return result;
  });
  for (long number : {0l, 1l, 39l, 60l, 231l, 512l, 520l}) {
    list.plain("another convention", "x32 " + std::to_string(number), 0x40000000 | number, -1, 0,
               0);
  }
}

}  // namespace troupe::sandbox::probe
