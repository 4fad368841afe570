#include "devices/console/detach_key.h"

#include "devices/console/detach.h"

namespace troupe::console {

DetachKey::Result DetachKey::filter(kj::ArrayPtr<kj::byte> typed) {
  size_t kept = 0;
  for (kj::byte byte : typed) {
    bool isKey = byte == DETACH_KEY;
    if (sawKey && !isKey) return {kept, true};
    if (isKey && !sawKey) {
      sawKey = true;
      continue;
    }
    sawKey = false;
    typed[kept++] = byte;
  }
  return {kept, false};
}

}  // namespace troupe::console
