#include "sandbox/probe/jail_stage.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>

#include <stdexcept>

#include "sandbox/filter_program.h"
#include "sandbox/probe/cases.h"
#include "sandbox/probe/reach.h"
#include "sandbox/probe/subject.h"

namespace troupe::sandbox::probe {
namespace {

const Policy& policy() {
  static const Policy POLICY = readPolicy("", SUBJECT.text);
  return POLICY;
}

const PolicyFilter& written(const std::string& stage) {
  for (const PolicyFilter& filter : policy().filters) {
    if (filter.stage == stage) return filter;
  }
  throw std::runtime_error("the profile has no stage " + stage);
}

// From 6.14 and 6.18 on the kernel answers uretprobe and uprobe ahead of any filter; both fail
// outside of a probe's trampoline. It looks at the lower half of the number alone.
bool isAheadOfFilters(const RawCall& call, const Report& report) {
  if (call.number & I386_CALL) return false;
  uint32_t number = uint32_t(call.number);
  if (number == 335) return report.outcome == Outcome::DIED && report.value == SIGILL;
  return number == 336 && report.outcome == Outcome::RETURNED && report.value == -ENXIO;
}

// One sentence when the kernel did something else.
std::string differs(const JailStage& stage, const RawCall& call, const Report& report) {
  uint32_t word = wanted(stage, call);
  std::string what = stage.name + ": " + describe(call) + ": " + wordFor(report) + " (" +
                     std::to_string(report.value) + "); the profile ";
  if (report.outcome == Outcome::UNREADY) return what + "could not be entered\n";
  if (isKill(word)) return stopped(call, report) ? "" : what + "kills\n";
  if (report.outcome == Outcome::KILLED) return what + "lets it through\n";
  if ((word & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO &&
      report.value != -int64_t(word & SECCOMP_RET_DATA)) {
    return what + "answers with an error of its own\n";
  }
  return "";
}

}  // namespace

std::vector<JailStage> stagesOfSubject() {
  std::vector<JailStage> result;
  const Profile& profile = SUBJECT.profile;
  JailStage main;
  for (size_t i = 0; i < profile.filterCount; i++) {
    const ProfileFilter& filter = profile.filters[i];
    bool thread = strncmp(filter.stage, "thread:", 7) == 0;
    JailStage stage = thread ? result[0] : main;
    stage.name = filter.stage;
    stage.programs.push_back(filter);
    stage.filters.push_back(&written(filter.stage));
    result.push_back(stage);
    if (!thread) main = stage;
  }
  return result;
}

uint32_t wanted(const JailStage& stage, const RawCall& call) {
  if (call.number & I386_CALL) return SECCOMP_RET_KILL_PROCESS;
  uint32_t answer = SECCOMP_RET_ALLOW;
  for (const PolicyFilter* filter : stage.filters) {
    // The kill is the lowest of these words as a signed number, ALLOW the highest.
    uint32_t one = decide(*filter, int(call.number), call.arguments);
    if (int32_t(one) < int32_t(answer)) answer = one;
  }
  return answer;
}

bool isKill(uint32_t word) {
  return word == SECCOMP_RET_KILL_PROCESS;
}

bool stopped(const RawCall& call, const Report& report) {
  return report.outcome == Outcome::KILLED || isAheadOfFilters(call, report);
}

void expectAsWritten(const JailStage& stage, const std::vector<RawCall>& calls,
                     const std::vector<Report>& reports) {
  ASSERT_GE(reports.size(), calls.size());
  std::string differences;
  for (size_t i = 0; i < calls.size() && differences.size() < 4000; i++)
    differences += differs(stage, calls[i], reports[i]);
  EXPECT_EQ("", differences);
}

}  // namespace troupe::sandbox::probe
