#pragma once

#include <kj/common.h>
#include <kj/string.h>
#include <kj/vector.h>

namespace troupe {

// A folder that becomes a guest's bundle, or vanishes again with this object if it does not. Errors
// are TRP-rlm-013.
class NewBundle {
 public:
  // Makes the folder; an empty one that is there already does, too.
  explicit NewBundle(kj::StringPtr path);
  ~NewBundle() noexcept(false);
  KJ_DISALLOW_COPY(NewBundle);

  kj::StringPtr path() const { return folder; }

  // Copies the file `from` into it as `name`, and says how far it is: `what` names it ("kernel").
  void copy(kj::StringPtr what, kj::StringPtr from, kj::StringPtr name);

  void write(kj::StringPtr name, kj::StringPtr text);

  // It is complete.
  void keep() { kept = true; }

 private:
  [[noreturn]] void failed(kj::StringPtr doing, int error) const;

  kj::String folder;
  bool isOurs = false;
  bool kept = false;
};

}  // namespace troupe
