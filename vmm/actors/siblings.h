#pragma once

#include <kj/array.h>
#include <kj/vector.h>
#include <sys/types.h>

#include "sandbox/attest.h"

namespace troupe {

// The actors of one VM whose namespaces are known, to be compared with those of the next.
//
// The kernel gives the numbers of an ended process's namespaces to the next one, also some time
// before anybody can learn of its end. So whoever seems to share one is looked at again.
class Siblings {
 public:
  void add(pid_t pid, const sandbox::NamespaceIds& namespaces);
  size_t count() const { return known.size(); }
  // It has ended.
  void forget(pid_t pid);

  // Those that the process `pid`, which has `its`, is to be compared with.
  kj::Array<sandbox::NamespaceIds> of(pid_t pid, const sandbox::NamespaceIds& its) const;

 private:
  struct Known {
    pid_t pid;
    sandbox::NamespaceIds namespaces;
  };
  void forgetTheGone();

  kj::Vector<Known> known;
};

}  // namespace troupe
