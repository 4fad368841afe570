// What an actor's jail lets through, tried in the jail itself and compared with the profile and
// with the table beside it. Linked into one test per actor (probe.bzl), like the other
// actor_*_test.cc.

#include <gtest/gtest.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include <algorithm>
#include <map>
#include <set>

#include "sandbox/probe/cases.h"
#include "sandbox/probe/jail_stage.h"
#include "sandbox/probe/probe_bench.h"
#include "sandbox/probe/reach.h"
#include "sandbox/probe/subject.h"

namespace troupe::sandbox::probe {
namespace {

struct IoctlName {
  std::string fd;
  std::string request;
};

// What is tried in one stage, with how it ended.
struct Sweep {
  std::vector<RawCall> calls;  // every number, then every rule, then ioctls
  size_t ioctlsBegin = 0;
  std::vector<IoctlName> ioctls;
  std::vector<uint32_t> scenarios;
  std::vector<Report> reports;  // of the calls, then of the scenarios

  const Report& ofIoctl(size_t i) const { return reports[ioctlsBegin + i]; }
  const Report& ofScenario(size_t i) const { return reports[calls.size() + i]; }

  void addRules(const PolicyFilter& filter) {
    for (const Verdict& verdict : filter.verdicts) {
      VerdictCases cases = casesOf(verdict);
      calls.push_back(cases.passing);
      for (const auto& ways : cases.violating)
        calls.insert(calls.end(), ways.begin(), ways.end());
    }
    ioctlsBegin = calls.size();
  }

  void addIoctl(const std::string& fd, uint64_t number, const std::string& name, uint64_t request) {
    calls.push_back(ioctlCall(number, request));
    ioctls.push_back({fd, name});
  }
};

// In `start`: all there is. Known requests, and a few of every type, on one fd of each name.
Sweep sweepOfStart(const JailStage& stage) {
  Sweep sweep;
  sweep.calls = everyNumber();
  for (const RawCall& call : everyNumberOtherwise())
    sweep.calls.push_back(call);
  sweep.addRules(stage.latest());
  uint32_t end = 0;
  auto add = [&](const std::string& name, uint64_t number) {
    for (const NamedRequest& one : knownRequests())
      sweep.addIoctl(name, number, one.name, one.request);
    for (uint64_t request : everyRequestType())
      sweep.addIoctl(name, number, "type " + std::to_string(request >> 8), request);
  };
  for (size_t i = 0; i < SUBJECT.profile.fdCount; i++) {
    const ProfileFd& fd = SUBJECT.profile.fds[i];
    add(fd.name, fd.number);
    end = std::max(end, fd.number + fd.count);
  }
  add("(no fd)", end + 1);
  for (uint32_t i = 0; i < makeScenarios().size(); i++)
    sweep.scenarios.push_back(i);
  return sweep;
}

// Later: every number and every rule again, and of the rest what `start` let through: filters add
// up, so nothing that one has killed comes back.
Sweep sweepOfLater(const JailStage& stage, const Sweep& start) {
  Sweep sweep;
  for (const RawCall& call : everyNumber()) {
    if (call.arguments[0] == 0) sweep.calls.push_back(call);
  }
  sweep.addRules(stage.latest());
  for (size_t i = 0; i < start.ioctls.size(); i++) {
    if (start.ofIoctl(i).outcome == Outcome::KILLED) continue;
    sweep.calls.push_back(start.calls[start.ioctlsBegin + i]);
    sweep.ioctls.push_back(start.ioctls[i]);
  }
  for (size_t i = 0; i < start.scenarios.size(); i++) {
    if (start.ofScenario(i).outcome != Outcome::KILLED) {
      sweep.scenarios.push_back(start.scenarios[i]);
    }
  }
  return sweep;
}

std::vector<std::string> sorted(const std::set<std::string>& names) {
  return std::vector<std::string>(names.begin(), names.end());
}

bool isNumber(const RawCall& call) {
  return call.number >= 0 && call.number < NUMBER_COUNT;
}

// How many numbers of the other conventions were stopped.
std::string lineOfConventions(const JailStage& stage, const Sweep& sweep) {
  size_t i386 = 0, x32 = 0;
  for (size_t i = 0; i < sweep.ioctlsBegin; i++) {
    if (!stopped(sweep.calls[i], sweep.reports[i])) continue;
    if (sweep.calls[i].number & I386_CALL) {
      i386++;
    } else if (sweep.calls[i].number >> 9 == X32_CALL >> 9) {
      x32++;
    }
  }
  return stage.name + ": by other conventions: killed " + std::to_string(i386) + " of i386, " +
         std::to_string(x32) + " of x32\n";
}

// Which calls came back, whatever they answered.
std::string linesOfCalls(const JailStage& stage, const Sweep& sweep) {
  std::set<std::string> through, answered;
  for (size_t i = 0; i < sweep.ioctlsBegin; i++) {
    if (!isNumber(sweep.calls[i]) || stopped(sweep.calls[i], sweep.reports[i])) continue;
    uint32_t word = wanted(stage, sweep.calls[i]);
    bool error = (word & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO;
    (error ? answered : through).insert(syscallName(sweep.calls[i].number));
  }
  size_t others = NUMBER_COUNT - through.size() - answered.size();
  std::string text = wrapped(stage.name + ": through:", sorted(through));
  text += wrapped(stage.name + ": answered with an error:", sorted(answered));
  return text + stage.name + ": killed: the other " + std::to_string(others) + " of " +
         std::to_string(NUMBER_COUNT) + " numbers\n";
}

std::string linesOfIoctls(const JailStage& stage, const Sweep& sweep) {
  std::map<std::string, std::vector<std::string>> ioctls;
  for (size_t i = 0; i < sweep.ioctls.size(); i++) {
    if (sweep.ofIoctl(i).outcome != Outcome::KILLED) {
      ioctls[sweep.ioctls[i].fd].push_back(sweep.ioctls[i].request);
    }
  }
  if (ioctls.empty()) return stage.name + ": ioctl: none\n";
  std::string text;
  for (const auto& [fd, requests] : ioctls)
    text += wrapped(stage.name + ": ioctl on " + fd + ":", requests);
  return text;
}

std::string linesOfScenarios(const JailStage& stage, const Sweep& sweep) {
  auto scenarios = makeScenarios();
  GroupLines groups;
  for (size_t i = 0; i < sweep.scenarios.size(); i++) {
    const Scenario& scenario = scenarios[sweep.scenarios[i]];
    groups.add(scenario.group, scenario.name, sweep.ofScenario(i));
  }
  return groups.text(stage.name + ": ");
}

// Of calls that the profile kills each so many-th is made, and the others are taken to be killed.
size_t deadlyOnesEach() {
  const char* text = getenv("PROBE_DEADLY_ONES_EACH");
  return text == nullptr ? 1 : std::max(1, atoi(text));
}

// Makes all its attempts.
void make(Sweep& sweep, const JailStage& stage, ProbeBench& bench) {
  std::vector<RawCall> made;
  std::vector<size_t> places;
  size_t deadly = 0;
  for (size_t i = 0; i < sweep.calls.size(); i++) {
    RawCall call = sweep.calls[i];
    call.deadly = isKill(wanted(stage, call));
    if (call.deadly && deadly++ % deadlyOnesEach() != 0) continue;
    made.push_back(call);
    places.push_back(i);
  }
  auto reports = bench.inChildren(stage.programs, made, sweep.scenarios);
  sweep.reports.assign(sweep.calls.size(), Report{0, Outcome::KILLED, 0});
  for (size_t i = 0; i < made.size(); i++)
    sweep.reports[places[i]] = reports[i];
  sweep.reports.insert(sweep.reports.end(), reports.begin() + made.size(), reports.end());
}

// Every number, every way to keep or break a rule, ioctls on every fd, and every scenario,
// in every stage and thread, answered by the kernel: as the profile says, call by call, and as the
// checked-in table says.
TEST(JailProbe, JAIL01_ReachesWhatItsTableSaysAndNoMore) {
  ProbeBench bench(SUBJECT.profile);
  std::string text = std::string("# What gets through the jail of ") + SUBJECT.profile.actor +
                     ", as sandbox/probe finds it; its README.md says how to read and renew it.\n";
  Sweep start;
  for (const JailStage& stage : stagesOfSubject()) {
    SCOPED_TRACE(stage.name);
    Sweep sweep = stage.name == "start" ? sweepOfStart(stage) : sweepOfLater(stage, start);
    make(sweep, stage, bench);
    expectAsWritten(stage, sweep.calls, sweep.reports);
    text += "\n" + linesOfCalls(stage, sweep);
    if (stage.name == "start") text += lineOfConventions(stage, sweep);
    text += linesOfIoctls(stage, sweep) + linesOfScenarios(stage, sweep);
    if (stage.name == "start") start = std::move(sweep);
  }
  EXPECT_EQ("", compareWithFile(text, SUBJECT.reach))
      << "if the profile changed on purpose: PROBE_WRITE=$PWD/" << SUBJECT.reach
      << " bazel run with this test, and read what changed";
}

// The probe itself: it reports what happens, so that a hole would be seen.
TEST(JailProbe, SeesWhatAFilterDoesNotStop) {
  ProbeBench bench(SUBJECT.profile);
  auto reports = bench.inChildren({}, {{SYS_getppid, {}}, {SYS_pause, {}}}, {});
  EXPECT_EQ(Outcome::RETURNED, reports[0].outcome);
  EXPECT_EQ(1, reports[0].value);  // the nursery is the first process of its namespace
  EXPECT_EQ(Outcome::HUNG, reports[1].outcome);
}

}  // namespace
}  // namespace troupe::sandbox::probe
