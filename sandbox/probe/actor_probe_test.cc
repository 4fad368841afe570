// What an actor's jail lets through, tried in the jail itself. Linked into one test per actor
// (probe.bzl).

#include <dirent.h>
#include <errno.h>
#include <gtest/gtest.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>

#include "sandbox/attest.h"
#include "sandbox/filter_program.h"
#include "sandbox/probe/cases.h"
#include "sandbox/probe/probe_bench.h"
#include "sandbox/probe/reach.h"
#include "sandbox/probe/subject.h"

namespace troupe::sandbox::probe {
namespace {

// One stage: the filters in force then, compiled and as written.
struct Layer {
  std::string stage;
  std::vector<ProfileFilter> programs;
  std::vector<const PolicyFilter*> filters;
  bool isThread() const { return stage.compare(0, 7, "thread:") == 0; }
};

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

// Filters add up: `run` has those of `start` and `ready` as well.
std::vector<Layer> layers() {
  std::vector<Layer> result;
  const Profile& profile = SUBJECT.profile;
  Layer main;
  for (size_t i = 0; i < profile.filterCount; i++) {
    const ProfileFilter& filter = profile.filters[i];
    bool thread = strncmp(filter.stage, "thread:", 7) == 0;
    Layer layer = thread ? result[0] : main;
    layer.stage = filter.stage;
    layer.programs.push_back(filter);
    layer.filters.push_back(&written(filter.stage));
    result.push_back(layer);
    if (!thread) main = layer;
  }
  return result;
}

// What the profile as written says of a call: the SECCOMP_RET_… word.
uint32_t wanted(const Layer& layer, const RawCall& call) {
  uint32_t answer = SECCOMP_RET_ALLOW;
  for (const PolicyFilter* filter : layer.filters) {
    // The kill is the lowest of these words as a signed number, ALLOW the highest.
    uint32_t one = decide(*filter, call.number, call.arguments);
    if (int32_t(one) < int32_t(answer)) answer = one;
  }
  return answer;
}

bool isKill(uint32_t word) {
  return word == SECCOMP_RET_KILL_PROCESS;
}

// From 6.14 and 6.18 on the kernel answers uretprobe and uprobe ahead of any filter; both fail
// outside of a probe's trampoline.
bool isAheadOfFilters(const RawCall& call, const Report& report) {
  if (call.number == 335) return report.outcome == Outcome::DIED && report.value == SIGILL;
  return call.number == 336 && report.outcome == Outcome::RETURNED && report.value == -ENXIO;
}

bool stopped(const RawCall& call, const Report& report) {
  return report.outcome == Outcome::KILLED || isAheadOfFilters(call, report);
}

// One sentence when the kernel did something else.
std::string differs(const Layer& layer, const RawCall& call, const Report& report) {
  uint32_t word = wanted(layer, call);
  std::string what = layer.stage + ": " + describe(call) + ": " + wordFor(report) + " (" +
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

void expectAsWritten(const Layer& layer, const std::vector<RawCall>& calls,
                     const std::vector<Report>& reports) {
  ASSERT_GE(reports.size(), calls.size());
  std::string differences;
  for (size_t i = 0; i < calls.size() && differences.size() < 4000; i++)
    differences += differs(layer, calls[i], reports[i]);
  EXPECT_EQ("", differences);
}

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

// In `start`: all there is, known requests on one fd of each name and every type of request on one
// of each kind.
Sweep sweepOfStart(const Layer& layer) {
  Sweep sweep;
  sweep.calls = everyNumber();
  sweep.addRules(*layer.filters.back());
  std::set<std::string> kinds;
  uint32_t end = 0;
  auto add = [&](const std::string& name, uint64_t number, bool everyType) {
    for (const NamedRequest& one : knownRequests())
      sweep.addIoctl(name, number, one.name, one.request);
    if (!everyType) return;
    for (uint64_t request : everyRequestType())
      sweep.addIoctl(name, number, "number " + std::to_string(request), request);
  };
  for (size_t i = 0; i < SUBJECT.profile.fdCount; i++) {
    const ProfileFd& fd = SUBJECT.profile.fds[i];
    add(fd.name, fd.number, kinds.insert(fd.kind).second);
    end = std::max(end, fd.number + fd.count);
  }
  add("(no fd)", end + 1, true);
  for (uint32_t i = 0; i < makeScenarios().size(); i++)
    sweep.scenarios.push_back(i);
  return sweep;
}

// Later: every number and every rule again, and of the rest what `start` let through: filters add
// up, so nothing that one has killed comes back.
Sweep sweepOfLater(const Layer& layer, const Sweep& start) {
  Sweep sweep;
  for (const RawCall& call : everyNumber()) {
    if (call.arguments[0] == 0) sweep.calls.push_back(call);
  }
  sweep.addRules(*layer.filters.back());
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

// Which calls came back, whatever they answered.
std::string linesOfCalls(const Layer& layer, const Sweep& sweep) {
  std::set<std::string> through, answered;
  for (size_t i = 0; i < sweep.ioctlsBegin; i++) {
    if (stopped(sweep.calls[i], sweep.reports[i])) continue;
    uint32_t word = wanted(layer, sweep.calls[i]);
    bool error = (word & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO;
    (error ? answered : through).insert(syscallName(sweep.calls[i].number));
  }
  size_t others = NUMBER_COUNT - through.size() - answered.size();
  std::string text = wrapped(layer.stage + ": through:", sorted(through));
  text += wrapped(layer.stage + ": answered with an error:", sorted(answered));
  return text + layer.stage + ": killed: the other " + std::to_string(others) + " of " +
         std::to_string(NUMBER_COUNT) + " numbers\n";
}

std::string linesOfIoctls(const Layer& layer, const Sweep& sweep) {
  std::map<std::string, std::vector<std::string>> ioctls;
  for (size_t i = 0; i < sweep.ioctls.size(); i++) {
    if (sweep.ofIoctl(i).outcome != Outcome::KILLED) {
      ioctls[sweep.ioctls[i].fd].push_back(sweep.ioctls[i].request);
    }
  }
  if (ioctls.empty()) return layer.stage + ": ioctl: none\n";
  std::string text;
  for (const auto& [fd, requests] : ioctls)
    text += wrapped(layer.stage + ": ioctl on " + fd + ":", requests);
  return text;
}

std::string linesOfScenarios(const Layer& layer, const Sweep& sweep) {
  auto scenarios = makeScenarios();
  GroupLines groups;
  for (size_t i = 0; i < sweep.scenarios.size(); i++) {
    const Scenario& scenario = scenarios[sweep.scenarios[i]];
    groups.add(scenario.group, scenario.name, sweep.ofScenario(i));
  }
  return groups.text(layer.stage + ": ");
}

// JAIL-01. Every number, every way to keep or break a rule, ioctls on every fd, and every scenario,
// in every stage and thread, answered by the kernel: as the profile says, call by call, and as the
// checked-in table says.
TEST(JailProbe, ReachesWhatItsTableSaysAndNoMore) {
  ProbeBench bench(SUBJECT.profile);
  std::string text = std::string("# What gets through the jail of ") + SUBJECT.profile.actor +
                     ", as sandbox/probe finds it; its README.md says how to read and renew it.\n";
  Sweep start;
  for (const Layer& layer : layers()) {
    SCOPED_TRACE(layer.stage);
    Sweep sweep = layer.stage == "start" ? sweepOfStart(layer) : sweepOfLater(layer, start);
    sweep.reports = bench.inChildren(layer.programs, sweep.calls, sweep.scenarios);
    expectAsWritten(layer, sweep.calls, sweep.reports);
    text += "\n" + linesOfCalls(layer, sweep) + linesOfIoctls(layer, sweep) +
            linesOfScenarios(layer, sweep);
    if (layer.stage == "start") start = std::move(sweep);
  }
  const char* ignored = memoryCanBeSealedAgainstExecution() ? nullptr : EXECUTE_MEMORY;
  EXPECT_EQ("", compareWithFile(text, SUBJECT.reach, ignored))
      << "if the profile changed on purpose: PROBE_WRITE=$PWD/" << SUBJECT.reach
      << " bazel run with this test, and read what changed";
}

// The same for one call of each kind in processes that the launcher started and that took their
// filters themselves: for every rule one call that passes and one that does not.
TEST(JailProbe, EveryRuleHoldsInTheRealJail) {
  ProbeBench bench(SUBJECT.profile);
  for (const Layer& layer : layers()) {
    SCOPED_TRACE(layer.stage);
    std::vector<RawCall> passing, violating;
    size_t turn = 0;
    for (const Verdict& verdict : layer.filters.back()->verdicts) {
      VerdictCases cases = casesOf(verdict);
      // Ends the one thread whose report is waited for.
      bool silent = layer.isThread() && verdict.syscall == SYS_exit;
      if (!silent && !isKill(wanted(layer, cases.passing))) passing.push_back(cases.passing);
      for (const auto& ways : cases.violating) {
        std::vector<RawCall> deadly;
        std::copy_if(ways.begin(), ways.end(), std::back_inserter(deadly),
                     [&](const RawCall& call) { return isKill(wanted(layer, call)); });
        if (!deadly.empty()) violating.push_back(deadly[turn++ % deadly.size()]);
      }
    }
    EXPECT_FALSE(passing.empty());
    expectAsWritten(layer, passing, bench.inOrder(layer.stage, passing));
    expectAsWritten(layer, violating, bench.inProcesses(layer.stage, violating));
  }
}

// Every 16th number at random distance, so that no habit of the nursery hides what a real start
// does.
TEST(JailProbe, NumbersWithoutARuleKillTheRealProcess) {
  ProbeBench bench(SUBJECT.profile);
  for (const Layer& layer : layers()) {
    std::vector<RawCall> calls;
    for (int64_t number = layer.stage.size() % 16; number < NUMBER_COUNT; number += 16) {
      RawCall call = {number, {}};
      if (isKill(wanted(layer, call))) calls.push_back(call);
    }
    expectAsWritten(layer, calls, bench.inProcesses(layer.stage, calls));
  }
}

std::vector<int> openFds(pid_t pid) {
  std::vector<int> numbers;
  DIR* dir = opendir(("/proc/" + std::to_string(pid) + "/fd").c_str());
  if (dir == nullptr) return numbers;
  while (dirent* entry = readdir(dir)) {
    if (entry->d_name[0] != '.') numbers.push_back(atoi(entry->d_name));
  }
  closedir(dir);
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// JAIL-02.
TEST(JailProbe, FdTableIsTheProfiles) {
  ProbeBench bench(SUBJECT.profile);
  for (const Layer& layer : layers()) {
    if (layer.stage == "start" || layer.isThread()) continue;
    SCOPED_TRACE(layer.stage);
    Running running = bench.startActor(layer.stage, {});
    Greeting greeting;
    bench.waitUntilEntered(running, greeting);
    EXPECT_EQ(bench.expectedFds(layer.stage), openFds(running.child->pid()));
    if (!bench.genuine()) continue;  // /dev/kvm is not for this user
    Stage stage = layer.stage == "run" ? Stage::RUN : Stage::READY;
    auto found = attest(SUBJECT.profile, running.child->pid(), {stage});
    for (const kj::String& difference : found.differences)
      ADD_FAILURE() << difference.cStr();
  }
}

// JAIL-03.
TEST(JailProbe, TwoStartsHaveNoAddressInCommon) {
  ProbeBench bench(SUBJECT.profile);
  Greeting greetings[2];
  for (Greeting& greeting : greetings) {
    Running running = bench.startActor("start", {});
    bench.waitUntilEntered(running, greeting);
  }
  EXPECT_NE(greetings[0].text, greetings[1].text);
  EXPECT_NE(greetings[0].heap, greetings[1].heap);
  EXPECT_NE(greetings[0].stack, greetings[1].stack);
  EXPECT_NE(greetings[0].mapping, greetings[1].mapping);
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
