#include "sandbox/layer_guard.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>

namespace troupe::sandbox {
namespace {

constexpr uint32_t MMAP_FLAGS = 3;  // the index of the argument

bool mapsNoFile(const Verdict& verdict) {
  return std::any_of(
      verdict.conditions.begin(), verdict.conditions.end(), [](const Condition& condition) {
        return condition.argument == MMAP_FLAGS && condition.test == Condition::MASKED_EQUAL &&
               (condition.mask & condition.value & MAP_ANONYMOUS) != 0;
      });
}

class Guard {
 public:
  Guard(const Policy& policy, const std::function<void(const ProfileError&)>& report)
      : memory(policy.layers.memory.access),
        isSaid(policy.layers.memory.where.line != 0),
        hasRing(!policy.layers.ioUringOpcodes.empty()),
        report(report) {}

  void lookAt(const Policy& policy) const {
    for (const PolicyFilter& filter : policy.filters) {
      if (filter.stage == "start") continue;
      for (const PolicyRule& rule : filter.rules) {
        if (rule.error == 0) look(rule);
      }
    }
  }

 private:
  void look(const PolicyRule& rule) const {
    // A rule set that no jail stands behind, as an imported one, says nothing of guest memory.
    if (memory != ProfileMemory::ALL && isSaid) lookAtMappings(rule);
    if (rule.syscall == SYS_io_uring_setup || rule.syscall == SYS_io_uring_register) {
      refuse(rule,
             "a ring made or changed after `start` has none of the restrictions of "
             "`io_uring`; move this rule to `start`");
    }
    if (rule.syscall == SYS_io_uring_enter && !hasRing) {
      refuse(rule,
             "the profile has no `io_uring { opcode: … }`, so it has no ring to enter; name "
             "the operations there, or drop this rule");
    }
  }

  void lookAtMappings(const PolicyRule& rule) const {
    if (rule.syscall == SYS_mmap) {
      auto verdicts = rule.verdicts();
      if (std::all_of(verdicts.begin(), verdicts.end(), mapsNoFile)) return;
      refuse(rule,
             "an actor that may not reach all of guest RAM maps no file once it is `ready`; "
             "move this rule to `start`, or let argument 3 be a `value` with MAP_ANONYMOUS");
    }
    if (memory != ProfileMemory::RANGES) return;
    if (rule.syscall == SYS_mremap || rule.syscall == SYS_remap_file_pages) {
      refuse(rule,
             "this call makes a mapping show more of the file behind it, and so more of guest "
             "RAM than the ranges of `memory`; an included rule is taken back by "
             "`ready { narrow { syscall: \"" +
                 rule.syscallName + "\" reason: \"…\" } }`");
    }
  }

  void refuse(const PolicyRule& rule, const std::string& why) const {
    report(ProfileError(rule.where, rule.syscallName + ": " + why));
  }

  const ProfileMemory::Access memory;
  const bool isSaid;
  const bool hasRing;
  const std::function<void(const ProfileError&)>& report;
};

}  // namespace

void guardLayers(const Policy& policy, const std::function<void(const ProfileError&)>& report) {
  Guard(policy, report).lookAt(policy);
}

}  // namespace troupe::sandbox
