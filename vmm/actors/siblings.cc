#include "vmm/actors/siblings.h"

namespace troupe {

namespace {

using sandbox::NamespaceIds;

constexpr size_t MANY = 64;  // more than most VMs have: up to here nobody is looked at for nothing

bool share(const NamespaceIds& one, const NamespaceIds& other) {
  for (size_t i = 0; i < sandbox::NAMESPACE_COUNT; i++) {
    if (one.inodes[i] != 0 && one.inodes[i] == other.inodes[i]) return true;
  }
  return false;
}

}  // namespace

void Siblings::add(pid_t pid, const NamespaceIds& namespaces) {
  forget(pid);
  if (known.size() >= MANY) forgetTheGone();
  known.add(Known{pid, namespaces});
}

void Siblings::forget(pid_t pid) {
  for (auto& one : known) {
    if (one.pid != pid) continue;
    if (&one != &known.back()) one = known.back();
    known.removeLast();
    return;
  }
}

// Whoever ends without being told of here.
void Siblings::forgetTheGone() {
  kj::Vector<Known> there;
  for (auto& one : known) {
    if (share(one.namespaces, sandbox::namespacesOf(one.pid))) there.add(one);
  }
  known = kj::mv(there);
}

kj::Array<NamespaceIds> Siblings::of(pid_t pid, const NamespaceIds& its) const {
  kj::Vector<NamespaceIds> others;
  for (auto& one : known) {
    if (one.pid == pid) continue;
    bool seemsToShare = share(one.namespaces, its);
    others.add(seemsToShare ? sandbox::namespacesOf(one.pid) : one.namespaces);
  }
  return others.releaseAsArray();
}

}  // namespace troupe
