#include "vmm/actors/inspection.h"

#include <kj/debug.h>
#include <sys/stat.h>

#include "sandbox/fd_view.h"
#include "vmm/actors/memory_grant.h"

namespace troupe {

namespace {

constexpr kj::Duration READY_DEADLINE = 2 * kj::SECONDS;
constexpr kj::Duration READY_STEP = 1 * kj::MILLISECONDS;
// It is linked when it starts, and asks the kernel about the network first.
constexpr kj::Duration HELPER_DEADLINE = 10 * kj::SECONDS;
// Within this every thread has stopped to show its filters, unless its disk or memory hangs.
constexpr kj::Duration STOP_DEADLINE = 2 * kj::SECONDS;

}  // namespace

Inspection::Inspection(kj::Timer& timer, sandbox::Jail jail, int ramFile,
                       kj::Array<broker::RamRegion> regions)
    : timer(timer), jail(jail), regions(kj::mv(regions)) {
  struct stat info;
  KJ_SYSCALL(fstat(ramFile, &info));
  ram = {info.st_dev, info.st_ino, nullptr};
}

Inspection::Inspection(kj::Timer& timer, sandbox::Jail jail)
    : timer(timer), jail(jail), ram{0, 0, nullptr} {}

kj::Promise<void> Inspection::attest(Actor& actor) {
  if (jail == sandbox::Jail::OFF) return kj::READY_NOW;
  return readFilters(actor).then(
      [this, &actor](sandbox::FilterReading filters) { accept(actor, filters); });
}

kj::Promise<void> Inspection::attestWhenReady(Actor& actor) {
  if (jail == sandbox::Jail::OFF) return kj::READY_NOW;
  return attestBefore(actor, timer.now() + READY_DEADLINE);
}

kj::Promise<void> Inspection::attestHelper(Actor& helper) {
  if (jail == sandbox::Jail::OFF) return kj::READY_NOW;
  return attestBefore(helper, timer.now() + HELPER_DEADLINE);
}

kj::Promise<void> Inspection::attestBefore(Actor& actor, kj::TimePoint deadline) {
  auto others = namespacesOfOthers(actor);
  auto seen = sandbox::attest(actor.profile(), actor.child().pid(), optionsFor(actor, others));
  if (seen.differences.size() == 0 || timer.now() >= deadline) return attest(actor);
  return timer.afterDelay(READY_STEP).then([this, &actor, deadline]() {
    return attestBefore(actor, deadline);
  });
}

sandbox::Attestation Inspection::look(Actor& actor, sandbox::Stage stage) {
  auto others = namespacesOfOthers(actor);
  auto options = optionsFor(actor, others);
  options.stage = stage;
  options.observe = true;
  return sandbox::attest(actor.profile(), actor.child().pid(), options);
}

kj::StringPtr Inspection::stageOf(Actor& actor) {
  if (host == nullptr) host = sandbox::viewHost();
  return sandbox::stageOf(actor.profile(), actor.child().pid(), KJ_ASSERT_NONNULL(host).filters);
}

kj::String Inspection::filterMethod() const {
  if (whyOnlyCounts.size() == 0) return kj::str("by their instructions");
  return kj::str("by mode and count (not by their instructions: ", whyOnlyCounts, ")");
}

kj::Promise<sandbox::FilterReading> Inspection::readFilters(Actor& actor) {
  if (!asked) whyOnlyCounts = sandbox::whyNoFilterReading();
  asked = true;
  if (whyOnlyCounts.size() > 0) return sandbox::FilterReading{nullptr, kj::str(whyOnlyCounts)};
  // Of a thread that does not stop nothing is read, and that is a difference.
  auto late = timer.afterDelay(STOP_DEADLINE).then([]() { return sandbox::FilterReading(); });
  return actor.child().readFilters().exclusiveJoin(kj::mv(late));
}

sandbox::AttestOptions Inspection::optionsFor(Actor& actor,
                                              kj::ArrayPtr<const sandbox::NamespaceIds> others) {
  if (host == nullptr) host = sandbox::viewHost();
  sandbox::AttestOptions options;
  options.siblings = others;
  options.host = host;
  ramRanges = mappableRanges(actor.profile().layers.memory, regions);
  ram.ranges = ramRanges;
  options.memory = ram;
  options.journals = actor.journals();
  options.hostMemory = actor.hostMemory();
  options.traced = actor.child().isTraced();
  options.cgroup = actor.group();
  return options;
}

void Inspection::forget(Actor& actor) {
  siblings.forget(actor.child().pid());
}

kj::Array<sandbox::NamespaceIds> Inspection::namespacesOfOthers(Actor& actor) const {
  pid_t pid = actor.child().pid();
  return siblings.of(pid, sandbox::namespacesOf(pid));
}

void Inspection::accept(Actor& actor, const sandbox::FilterReading& filters) {
  auto others = namespacesOfOthers(actor);
  auto options = optionsFor(actor, others);
  options.filters = filters;
  if (filters.refusal.size() > 0) whyOnlyCounts = kj::str(filters.refusal);
  auto attestation = sandbox::attest(actor.profile(), actor.child().pid(), options);
  sandbox::requireAttested(actor.describe(), attestation);
  siblings.add(actor.child().pid(), attestation.namespaces);
}

}  // namespace troupe
