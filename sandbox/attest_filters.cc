// The instructions of the filters, where the kernel lets them be read.
#include <string.h>

#include "sandbox/attest_subject.h"

namespace troupe::sandbox {
namespace {

using Program = kj::Array<sock_filter>;

bool same(const ProfileFilter& filter, const Program& program) {
  return filter.length == program.size() &&
         memcmp(filter.program, program.begin(), program.asBytes().size()) == 0;
}

bool isThreadFilter(const ProfileFilter& filter) {
  return strncmp(filter.stage, "thread:", 7) == 0;
}

// How many instructions they share at their beginning.
size_t commonLength(const ProfileFilter& filter, const Program& program) {
  size_t at = 0;
  while (at < filter.length && at < program.size() &&
         memcmp(&filter.program[at], &program[at], sizeof(sock_filter)) == 0) {
    at++;
  }
  return at;
}

// Where a program leaves the filter that it resembles most.
kj::String firstDifference(const ProfileFilter& filter, const Program& program) {
  size_t at = commonLength(filter, program);
  if (at == filter.length || at == program.size()) {
    return kj::str("it has ", program.size(), " instructions, and that of \"", filter.stage,
                   "\" has ", filter.length);
  }
  return kj::str("instruction ", at, " of ", program.size(), " is not that of \"", filter.stage,
                 "\"");
}

// The filters that may stand at `index` in the stack of a thread, the oldest being 0.
kj::Vector<const ProfileFilter*> candidates(const Profile& profile, size_t index, bool main) {
  kj::Vector<const ProfileFilter*> all;
  for (size_t i = 0; i < profile.filterCount; i++) {
    const ProfileFilter& filter = profile.filters[i];
    bool first = strcmp(filter.stage, "start") == 0;
    if (first != (index == 0) || (main && isThreadFilter(filter))) continue;
    all.add(&filter);
  }
  return all;
}

const ProfileFilter* nearest(kj::ArrayPtr<const ProfileFilter* const> filters,
                             const Program& program) {
  const ProfileFilter* best = nullptr;
  for (auto filter : filters) {
    if (best == nullptr || commonLength(*filter, program) > commonLength(*best, program)) {
      best = filter;
    }
  }
  return best;
}

// The stage whose filter `program` is; empty and a difference when it is none of them.
kj::StringPtr stageOf(Subject& subject, kj::StringPtr layer, kj::StringPtr who, size_t index,
                      bool main, const Program& program) {
  auto filters = candidates(subject.profile, index, main);
  for (auto filter : filters) {
    if (same(*filter, program)) return filter->stage;
  }
  auto best = nearest(filters, program);
  auto detail =
      best == nullptr ? kj::str("its profile has none there") : firstDifference(*best, program);
  subject.differ(layer, who, " has a system call filter (", index + 1,
                 ".) that is not its profile's: ", detail);
  return nullptr;
}

}  // namespace

void attestFilters(Subject& subject, kj::StringPtr layer, kj::StringPtr who, pid_t thread) {
  KJ_IF_MAYBE (reading, subject.options.filters) {
    if (reading->refusal.size() > 0) return;
    for (const ThreadFilters& read : reading->threads) {
      if (read.thread != thread) continue;
      kj::Vector<kj::StringPtr> stages;
      // What stands above a helper's first is its own, which no profile knows.
      bool helper = subject.profile.layers.helper.is;
      for (size_t i = 0; i < read.programs.size() && (i == 0 || !helper); i++) {
        auto stage = stageOf(subject, layer, who, i, thread == subject.pid, read.programs[i]);
        for (auto earlier : stages) {
          if (stage != nullptr && stage == earlier) {
            subject.differ(layer, who, " has the filter of \"", stage, "\" twice");
          }
        }
        stages.add(stage);
      }
      if (read.programs.size() == 0) {
        subject.differ(layer, who, " has no system call filter that can be read");
      }
      return;
    }
    subject.differ(layer, who, " could not be stopped to read its system call filters");
  }
}

}  // namespace troupe::sandbox
