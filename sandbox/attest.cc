#include "sandbox/attest.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/vector.h>
#include <stdlib.h>

#include "sandbox/attest_subject.h"
#include "sandbox/kernel_layers.h"
#include "sandbox/proc_files.h"

namespace troupe::sandbox {
namespace {

HostView hostOf(const AttestOptions& options) {
  KJ_IF_MAYBE (host, options.host) {
    return *host;
  }
  return viewHost();
}

}  // namespace

NamespaceIds namespacesOf(pid_t pid) {
  KJ_IF_MAYBE (folder, openAt(AT_FDCWD, kj::str("/proc/", pid).cStr(), O_PATH | O_DIRECTORY)) {
    return namespacesAt(*folder);
  }
  return {};
}

HostView viewHost() {
  auto own = KJ_REQUIRE_NONNULL(openAt(AT_FDCWD, "/proc/self", O_PATH | O_DIRECTORY),
                                "/proc is not mounted");
  auto status = KJ_REQUIRE_NONNULL(readAll(own, "status"));
  return {namespacesAt(own), atoi(statusField(status, "Seccomp_filters").cStr()),
          viewKernel().executableSeals};
}

Attestation attest(const Profile& profile, pid_t pid, const AttestOptions& options) {
  KJ_IF_MAYBE (folder, openAt(AT_FDCWD, kj::str("/proc/", pid).cStr(), O_PATH | O_DIRECTORY)) {
    HostView host = hostOf(options);
    Subject subject(profile, pid, *folder, options, host.sealsExecution);
    auto namespaces = namespacesAt(*folder);
    attestThreads(subject, host.filters);
    attestNamespaces(subject, host.namespaces, namespaces);
    attestFds(subject);
    attestRoot(subject);
    attestLimits(subject);
    attestCgroup(subject);
    attestMemory(subject);
    return {subject.differences.releaseAsArray(), namespaces, subject.observations.releaseAsArray(),
            subject.hostMemory.releaseAsArray()};
  }
  return {kj::arr(kj::str("it has ended")), {}, nullptr, nullptr};
}

void requireAttested(kj::StringPtr name, const Attestation& attestation) {
  if (attestation.differences.size() == 0) return;
  kj::Vector<kj::String> numbered;
  for (const kj::String& difference : attestation.differences) {
    numbered.add(kj::str("\n  ", numbered.size() + 1, ". ", difference));
  }
  KJ_FAIL_REQUIRE(kj::str(
      "TRP-jail-030: the jail of ", name,
      " is not what its profile says, so the VM is not started:", kj::strArray(numbered, "")));
}

}  // namespace troupe::sandbox
