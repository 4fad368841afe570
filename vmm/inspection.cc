#include "vmm/inspection.h"

#include <kj/debug.h>
#include <sys/stat.h>

#include "vmm/memory_grant.h"

namespace troupe {

namespace {

constexpr kj::Duration READY_DEADLINE = 2 * kj::SECONDS;
constexpr kj::Duration READY_STEP = 1 * kj::MILLISECONDS;

}  // namespace

Inspection::Inspection(kj::Timer& timer, sandbox::Jail jail, int ramFile)
    : timer(timer), jail(jail) {
  struct stat info;
  KJ_SYSCALL(fstat(ramFile, &info));
  ram = {info.st_dev, info.st_ino, nullptr};
  ramBytes = info.st_size;
}

void Inspection::attest(Actor& actor) {
  if (jail == sandbox::Jail::ON) accept(actor, lookAt(actor));
}

kj::Promise<void> Inspection::attestWhenReady(Actor& actor) {
  if (jail == sandbox::Jail::OFF) return kj::READY_NOW;
  return attestBefore(actor, timer.now() + READY_DEADLINE);
}

kj::Promise<void> Inspection::attestBefore(Actor& actor, kj::TimePoint deadline) {
  auto attestation = lookAt(actor);
  if (attestation.differences.size() == 0 || timer.now() >= deadline) {
    accept(actor, attestation);
    return kj::READY_NOW;
  }
  return timer.afterDelay(READY_STEP).then([this, &actor, deadline]() {
    return attestBefore(actor, deadline);
  });
}

sandbox::Attestation Inspection::lookAt(Actor& actor) {
  forgetPredecessor(actor);
  sandbox::AttestOptions options;
  options.siblings = namespaces;
  if (host == nullptr) host = sandbox::viewHost();
  options.host = host;
  ramRanges = mappableRanges(actor.profile().layers.memory, ramBytes);
  ram.ranges = ramRanges;
  options.memory = ram;
  return sandbox::attest(actor.profile(), actor.child().pid(), options);
}

void Inspection::forgetPredecessor(Actor& actor) {
  auto name = actor.name();
  for (size_t i = 0; i < names.size(); i++) {
    if (names[i] != name) continue;
    names[i] = kj::mv(names.back());
    namespaces[i] = namespaces.back();
    names.removeLast();
    namespaces.removeLast();
    return;
  }
}

void Inspection::accept(Actor& actor, const sandbox::Attestation& attestation) {
  sandbox::requireAttested(actor.describe(), attestation);
  namespaces.add(attestation.namespaces);
  names.add(kj::str(actor.name()));
}

}  // namespace troupe
