#pragma once

#include <string>
#include <vector>

#include "sandbox/policy.h"
#include "sandbox/probe/attempt.h"
#include "sandbox/profile.h"

namespace troupe::sandbox::probe {

// One stage or thread of the subject: the filters in force then, compiled and as written.
struct JailStage {
  std::string name;
  std::vector<ProfileFilter> programs;
  std::vector<const PolicyFilter*> filters;

  bool isThread() const { return name.compare(0, 7, "thread:") == 0; }
  const PolicyFilter& latest() const { return *filters.back(); }
};

// All of the subject's. Filters add up: `run` has those of `start` and `ready` as well, a thread's
// that of `start`.
std::vector<JailStage> stagesOfSubject();

// What the profile as written says of a call: the SECCOMP_RET_… word.
uint32_t wanted(const JailStage& stage, const RawCall& call);
bool isKill(uint32_t word);

// Killed, or refused ahead of any filter.
bool stopped(const RawCall& call, const Report& report);

// Fails the test with one sentence for each call with which the kernel did something else than the
// profile as written says.
void expectAsWritten(const JailStage& stage, const std::vector<RawCall>& calls,
                     const std::vector<Report>& reports);

}  // namespace troupe::sandbox::probe
