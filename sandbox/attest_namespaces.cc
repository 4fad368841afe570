#include <stdlib.h>
#include <string.h>

#include "sandbox/attest_subject.h"
#include "sandbox/proc_files.h"

namespace troupe::sandbox {
namespace {

constexpr const char* NAMESPACE_NAMES[NAMESPACE_COUNT] = {"user", "pid", "net",   "mnt",
                                                          "ipc",  "uts", "cgroup"};

}  // namespace

NamespaceIds namespacesAt(int folder) {
  NamespaceIds ids = {};
  for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
    // "user:[4026531837]"
    KJ_IF_MAYBE (link, readLink(folder, kj::str("ns/", NAMESPACE_NAMES[i]).cStr())) {
      const char* bracket = strchr(link->cStr(), '[');
      if (bracket != nullptr) ids.inodes[i] = strtoull(bracket + 1, nullptr, 10);
    }
  }
  return ids;
}

void attestNamespaces(Subject& subject, const NamespaceIds& host, const NamespaceIds& own) {
  for (size_t i = 0; i < NAMESPACE_COUNT; i++) {
    uint64_t inode = own.inodes[i];
    auto layer = kj::str(NAMESPACE_NAMES[i], " namespace");
    const ProfileLayer& wanted = subject.profile.layers.namespaces[i];
    if (!wanted.wanted()) {
      bool hosts = inode != 0 && inode == host.inodes[i];
      subject.seen(layer, inode, hosts ? ", the host's" : "", ", which need not be its own");
      continue;
    }
    if (inode == 0 && host.inodes[i] == 0 && wanted.need != ProfileLayer::REQUIRED) {
      subject.seen(layer, "none: this kernel has no such namespaces");
      continue;
    }
    subject.seen(layer, inode);
    if (inode == 0) {
      subject.differ(layer, "its ", layer, " cannot be read");
      continue;
    }
    if (inode == host.inodes[i]) {
      subject.differ(layer, "its ", layer, " is the host's (", inode, ")");
    }
    for (const NamespaceIds& sibling : subject.options.siblings) {
      if (inode == sibling.inodes[i]) {
        subject.differ(layer, "its ", layer, " is that of another actor (", inode, ")");
      }
    }
  }
}

}  // namespace troupe::sandbox
