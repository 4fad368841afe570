#pragma once

#include <kj/array.h>
#include <kj/common.h>

namespace troupe::console {

// Watches what is typed on a terminal for the detach key.
//
// The key alone leaves; the key twice stands for itself once. So after one key it is open what is
// meant until the next byte comes, or until the caller, who has the clock, gives up waiting.
class DetachKey {
 public:
  struct Result {
    size_t kept;  // bytes for the guest, moved to the front of what was given
    bool detach;
  };
  Result filter(kj::ArrayPtr<kj::byte> typed);

  // True after a key whose meaning is still open.
  bool pending() const { return sawKey; }

 private:
  bool sawKey = false;
};

}  // namespace troupe::console
