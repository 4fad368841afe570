// Fuzzes guest.cfg and troupe.json, which a bundle brings: any texts, on top of a launcher that
// said nothing.
#include <capnp/message.h>
#include <kj/debug.h>

#include "sandbox/fuzz_message.h"
#include "tests/fuzz/finding.h"
#include "vmm/realm/guest_draft.h"

namespace troupe::realm {
namespace {

using fuzz::finding;

void check(const GuestPlan& plan) {
  if (plan.cpus < 1) finding("a guest without a CPU");
  if (plan.ram.size() < 1 || plan.ram[0].guestAddress != 0) finding("RAM does not begin at 0");
  uint64_t end = 0;
  for (auto& one : plan.ram) {
    bool isBehind = one.guestAddress >= end && one.size > 0;
    if (!isBehind || one.guestAddress + one.size < one.guestAddress) finding("RAM upon RAM");
    end = one.guestAddress + one.size;
  }
  for (auto& host : plan.hostMemory) {
    if (host.policy == MemoryPolicy::GUEST_CACHED) finding("the host's memory is the guest's own");
    for (auto& own : plan.ram) {
      bool meets = host.guestAddress < own.guestAddress + own.size &&
                   own.guestAddress < host.guestAddress + host.size;
      if (meets) finding("the host's memory upon RAM");
    }
    end = host.guestAddress + host.size;
    if (host.size == 0 || end < host.guestAddress) finding("the host's memory wraps");
  }
  for (auto& note : plan.notes)
    for (char c : note)
      if (c >= 0 && c < ' ') finding("a note that is no line of text");
}

void run(kj::ArrayPtr<const char> text) {
  capnp::MallocMessageBuilder message;
  auto launch = message.initRoot<GuestConfig>();
  kj::Maybe<GuestPlan> plan;
  auto failure = kj::runCatchingExceptions([&] {
    GuestDraft draft(launch.asReader());
    // Behind the first NUL, if there is one, stands the other file.
    size_t end = 0;
    while (end < text.size() && text[end] != 0)
      end++;
    draft.merge(text.slice(0, end), "guest.cfg");
    if (end < text.size()) draft.mergeTyped(text.slice(end + 1, text.size()), "troupe.json");
    plan = draft.finish({4, false, false});
  });
  KJ_IF_MAYBE (why, failure) {
    // Whoever wrote the file is told what to do about it: no sound JSON, or what a key may not
    // hold.
    auto said = why->getDescription();
    if (!said.startsWith("TRP-rlm-") && !said.startsWith("TRP-cfg-")) finding(said);
  }
  KJ_IF_MAYBE (good, plan) {
    check(*good);
  }
}

}  // namespace
}  // namespace troupe::realm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  troupe::sandbox::fuzzing::Quiet quiet;
  troupe::realm::run(kj::arrayPtr(reinterpret_cast<const char*>(data), size));
  return 0;
}
